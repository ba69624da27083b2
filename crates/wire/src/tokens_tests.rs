use super::*;

const SECRET: [u8; 32] = [3; 32];

fn at(ms: i64) -> Instant {
    Instant::from_ms(1_800_000_000_000 + ms)
}

fn token() -> String {
    sign(&SECRET, &TenantId::trusted("acme"), at(60_000))
}

#[test]
fn a_token_speaks_for_its_tenant_until_it_expires() {
    assert_eq!(verify(&SECRET, &token(), at(0)), Ok(TenantId::trusted("acme")));
    assert_eq!(verify(&SECRET, &token(), at(59_999)), Ok(TenantId::trusted("acme")));
    assert_eq!(verify(&SECRET, &token(), at(60_000)), Err(TokenError::Expired));
}

#[test]
fn a_token_that_lives_longer_than_any_may_is_not_accepted() {
    let token = sign(&SECRET, &TenantId::trusted("acme"), at(TTL_MAX_MS + 1));
    assert_eq!(verify(&SECRET, &token, at(0)), Err(TokenError::Expired));
}

#[test]
fn what_was_not_signed_here_is_forged() {
    let token = token();
    let (claims, tag) = token.trim_start_matches(PREFIX).split_once('.').unwrap_or_default();
    let other = URL_SAFE_NO_PAD.encode(r#"{"tenant":"evil","expires_ms":1800000060000}"#);
    for forged in [
        "",
        "tgt_",
        "tgt_.",
        claims,
        &format!("{PREFIX}{claims}"),
        &format!("{PREFIX}{claims}."),
        &format!("{PREFIX}{other}.{tag}"),
        &format!("{PREFIX}{claims}.{}", &tag[1..]),
        &format!("{PREFIX}{claims}.{tag}x"),
        &format!("tgt_{}", "a".repeat(5_000)),
    ] {
        assert_eq!(verify(&SECRET, forged, at(0)), Err(TokenError::Forged), "{forged}");
    }
    assert_eq!(verify(&[4; 32], &token, at(0)), Err(TokenError::Forged));
}
