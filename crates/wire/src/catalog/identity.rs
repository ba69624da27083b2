//! `[[identity]]`: where it comes from who asks. Tried in the order of the file.

use super::{
    IdentitySource, JwtIdentity, JwtKeys, Network, keys,
    problem::quoted,
    report::{Report, Span},
    table::{Node, Table, Text},
};
use std::{net::IpAddr, sync::Arc};

/// How many sources of identity a catalog may have.
const SOURCES_MAX: usize = 32;

/// How far clocks may be apart, when the catalog does not say.
const LEEWAY_MS: i64 = 60_000;

#[derive(Clone, Copy)]
enum Kind {
    Jwt,
    ApiKey,
    Header,
}

const KINDS: &[(&str, Kind)] = &[("jwt", Kind::Jwt), ("api_key", Kind::ApiKey), ("header", Kind::Header)];

/// Reads every source of identity.
pub(super) fn read(report: &mut Report<'_>, document: &mut Table<'_>) -> Vec<IdentitySource> {
    let nodes = document.list(report, "identity");
    keys::at_most(report, document.key_span("identity"), "sources of identity", nodes.len(), SOURCES_MAX);
    let mut sources: Vec<(IdentitySource, Span)> = Vec::new();
    for node in nodes.into_iter().take(SOURCES_MAX) {
        let Some(source) = source(report, node) else { continue };
        if let Some((_, first)) = sources.iter().find(|(other, _)| same(other, &source)) {
            let line = report.line(*first);
            let message = format!("this source of identity is hidden by the one on line {line}");
            report.error_help(node.span, message, "merge the two: the first that is present decides");
        }
        sources.push((source, node.span));
    }
    sources.into_iter().map(|(source, _)| source).collect()
}

fn same(one: &IdentitySource, other: &IdentitySource) -> bool {
    match (one, other) {
        (IdentitySource::Jwt(one), IdentitySource::Jwt(other)) => one.issuer == other.issuer,
        (IdentitySource::ApiKey { .. }, IdentitySource::ApiKey { .. }) => true,
        (IdentitySource::TrustedHeader { tenant: one, .. }, IdentitySource::TrustedHeader { tenant: other, .. }) => {
            one == other
        }
        _ => false,
    }
}

fn source(report: &mut Report<'_>, node: Node<'_>) -> Option<IdentitySource> {
    let mut table = node.table(report, "an identity")?;
    let help = "write type = \"jwt\", \"api_key\" or \"header\"";
    let kind = table.required(report, "type", help).and_then(|node| node.text(report, "`type` of an identity"));
    let kind = super::table::one_of(report, kind?, "`type` of an identity", KINDS)?;
    let source = match kind {
        Kind::Jwt => {
            table.about = "an identity of type `jwt`".to_owned();
            jwt(report, &mut table).map(IdentitySource::Jwt)
        }
        Kind::ApiKey => {
            table.about = "an identity of type `api_key`".to_owned();
            let header = table.get("header").map(|node| keys::header(report, node, "`header`"));
            match header {
                None => Some(IdentitySource::ApiKey { header: None }),
                Some(header) => header.map(|header| IdentitySource::ApiKey { header: Some(header) }),
            }
        }
        Kind::Header => {
            table.about = "an identity of type `header`".to_owned();
            trusted_header(report, &mut table)
        }
    };
    table.finish(report);
    source
}

fn trusted_header(report: &mut Report<'_>, table: &mut Table<'_>) -> Option<IdentitySource> {
    let help = "write tenant = \"x-tenant-id\", the header that names the tenant";
    let tenant = table.required(report, "tenant", help).and_then(|node| keys::header(report, node, "`tenant`"));
    let user = table.get("user").map(|node| keys::header(report, node, "`user`"));
    let help =
        "list the networks of the proxy that sets it: from = [\"10.0.0.0/8\"]; from anywhere else it could be forged";
    let from = table.required(report, "from", help);
    let nodes = from.and_then(|node| node.list(report, "`from`"));
    if let (Some(node), Some([])) = (from, nodes.as_deref()) {
        report.error_help(node.span, "`from` is empty: the header would never be believed", help);
        return None;
    }
    let count = nodes.as_ref().map_or(0, Vec::len);
    let networks: Vec<Network> = nodes?.into_iter().filter_map(|node| network(report, node)).collect();
    let user = match user {
        None => None,
        Some(user) => Some(user?),
    };
    (networks.len() == count).then_some(IdentitySource::TrustedHeader { tenant: tenant?, user, from: networks })
}

fn network(report: &mut Report<'_>, node: Node<'_>) -> Option<Network> {
    let text = node.text(report, "a network")?;
    let (address, prefix) = match text.text.split_once('/') {
        Some((address, prefix)) => (address, Some(prefix)),
        None => (text.text, None),
    };
    let parsed = address.parse::<IpAddr>().ok().and_then(|address| {
        let family_bits = if address.is_ipv4() { 32 } else { 128 };
        let bits = prefix.map_or(Some(family_bits), |prefix| prefix.parse::<u8>().ok())?;
        (bits <= family_bits).then_some(Network { address, prefix_bits: bits })
    });
    let Some(network) = parsed else {
        let help = "write an address and a prefix: \"10.0.0.0/8\", \"fd00::/8\" or \"127.0.0.1\"";
        report.error_help(text.span, format!("{} is not a network", quoted(text.text)), help);
        return None;
    };
    let first = first_address(network);
    if first != network.address {
        let help = format!("did you mean \"{first}/{}\"?", network.prefix_bits);
        report.error_help(text.span, format!("{} has bits set beyond its prefix", quoted(text.text)), help);
        return None;
    }
    if network.prefix_bits == 0 {
        let message = format!("{} is everybody: any client can name any tenant", quoted(text.text));
        report.warn(text.span, message, "list only the networks of the proxy in front");
    }
    Some(network)
}

fn first_address(network: Network) -> IpAddr {
    let bits = u32::from(network.prefix_bits);
    match network.address {
        IpAddr::V4(address) => {
            let mask = u32::MAX.checked_shl(32 - bits).unwrap_or(0);
            IpAddr::V4((u32::from(address) & mask).into())
        }
        IpAddr::V6(address) => {
            let mask = u128::MAX.checked_shl(128 - bits).unwrap_or(0);
            IpAddr::V6((u128::from(address) & mask).into())
        }
    }
}

fn jwt(report: &mut Report<'_>, table: &mut Table<'_>) -> Option<JwtIdentity> {
    let help = "write issuer = \"https://login.example.com/\", exactly as in the tokens' `iss`";
    let issuer = table.required(report, "issuer", help).and_then(|node| node.text(report, "`issuer`"));
    let issuer = issuer.and_then(|text| super::table::prose(report, text, "`issuer`", 500));
    let audience = audience(report, table);
    let keys = key_source(report, table);
    let algorithms = algorithms(report, table, keys.as_ref());
    let tenant_claim = table.text(report, "tenant_claim").map(|text| keys::pointer(report, text, "`tenant_claim`"));
    let tenant_claim = tenant_claim.unwrap_or_else(|| Some("/tenant_id".into()));
    let user_claim = table.text(report, "user_claim").map(|text| keys::pointer(report, text, "`user_claim`"));
    let user_claim = match user_claim {
        None => Some(None),
        Some(claim) => claim.map(Some),
    };
    let leeway_ms = keys::duration_ms(report, table, "leeway", 0..=300_000).unwrap_or(LEEWAY_MS);
    Some(JwtIdentity {
        issuer: issuer?,
        audience: audience?,
        algorithms: algorithms?,
        keys: keys?,
        tenant_claim: tenant_claim?,
        user_claim: user_claim?,
        leeway_s: leeway_ms.unsigned_abs() / 1000,
    })
}

fn audience(report: &mut Report<'_>, table: &mut Table<'_>) -> Option<Vec<Arc<str>>> {
    let help = "write audience = \"https://api.example.com\": tokens made for other services must not be accepted";
    let node = table.required(report, "audience", help)?;
    let nodes = match node.value {
        toml::de::DeValue::String(_) => vec![node],
        _ => node.list(report, "`audience`")?,
    };
    if nodes.is_empty() {
        report.error_help(node.span, "`audience` is empty", help);
        return None;
    }
    let count = nodes.len();
    let read = |node: Node<'_>| {
        let text = node.text(report, "an audience")?;
        super::table::prose(report, text, "an audience", 500)
    };
    let audience: Vec<Arc<str>> = nodes.into_iter().filter_map(read).collect();
    (audience.len() == count).then_some(audience)
}

fn key_source(report: &mut Report<'_>, table: &mut Table<'_>) -> Option<JwtKeys> {
    let names = ["secret_env", "secret_file", "public_key_file", "jwks_url"];
    let found: Vec<(&'static str, Node<'_>)> =
        names.into_iter().filter_map(|name| Some((name, table.get(name)?))).collect();
    let help = "write one of secret_env = \"NAME\", secret_file = \"path\", public_key_file = \"path\" and jwks_url = \"https://...\"";
    let (name, node) = match found.as_slice() {
        [one] => *one,
        [] => {
            report.error_help(table.span, format!("{} says nothing about its keys", table.about), help);
            return None;
        }
        [_, (_, second), ..] => {
            report.error_help(second.span, format!("{} takes its keys from one place", table.about), help);
            return None;
        }
    };
    let what = format!("`{name}`");
    let text = node.text(report, &what)?;
    match name {
        "secret_env" => variable(report, text).map(JwtKeys::SecretEnv),
        "secret_file" => file(report, text, &what).map(JwtKeys::SecretFile),
        "public_key_file" => file(report, text, &what).map(JwtKeys::PublicKeyFile),
        _ => {
            let url = keys::url(report, text, &what)?;
            let nearby = matches!(url.host(), Some("localhost" | "127.0.0.1" | "[::1]"));
            if url.scheme_str() == Some("http") && !nearby {
                let message = "keys fetched without TLS can be replaced on the way";
                report.warn(text.span, message, "use https, or fetch them from this machine");
            }
            Some(JwtKeys::JwksUrl(url))
        }
    }
}

/// The value is never shown: it may be the secret itself.
fn variable(report: &mut Report<'_>, text: Text<'_>) -> Option<Arc<str>> {
    let name = text.text;
    let holds = (1..=100).contains(&name.len())
        && !name.starts_with(|c: char| c.is_ascii_digit())
        && name.chars().all(|c| c.is_ascii_alphanumeric() || c == '_');
    if !holds {
        let help = "write the variable's name, such as secret_env = \"JWT_SECRET\"; the secret itself stays out of the catalog";
        report.error_veiled(text.span, "`secret_env` is not the name of an environment variable", help);
    }
    holds.then(|| name.into())
}

fn file(report: &mut Report<'_>, text: Text<'_>, what: &str) -> Option<Arc<str>> {
    if text.text.contains("-----BEGIN") {
        let help = "write the path of the file that holds it";
        report.error_veiled(text.span, format!("{what} holds a key instead of a path"), help);
        return None;
    }
    super::table::prose(report, text, what, 1000)
}

const ONE_KEY_HELP: &str = "write algorithms = [\"RS256\"] or [\"ES256\"], whichever the key is for";
const ALGORITHMS: [&str; 3] = ["HS256", "RS256", "ES256"];

fn algorithms(report: &mut Report<'_>, table: &mut Table<'_>, keys: Option<&JwtKeys>) -> Option<Vec<Arc<str>>> {
    let shared = keys.map(|keys| matches!(keys, JwtKeys::SecretEnv(_) | JwtKeys::SecretFile(_)));
    let one_key = matches!(keys, Some(JwtKeys::PublicKeyFile(_)));
    let Some(node) = table.get("algorithms") else {
        if one_key {
            let span = table.key_span("public_key_file").unwrap_or(table.span);
            report.error_help(span, "`public_key_file` needs `algorithms`", ONE_KEY_HELP);
            return None;
        }
        return Some(match shared? {
            true => vec!["HS256".into()],
            false => vec!["RS256".into(), "ES256".into()],
        });
    };
    let nodes = node.list(report, "`algorithms`")?;
    if nodes.is_empty() {
        report.error_help(node.span, "`algorithms` is empty", "leave it out, or name one of HS256, RS256 and ES256");
        return None;
    }
    let count = nodes.len();
    if one_key && count > 1 {
        report.error_help(node.span, "one public key goes with one algorithm", ONE_KEY_HELP);
    }
    let mut algorithms: Vec<Arc<str>> = Vec::new();
    for node in nodes {
        let Some(text) = node.text(report, "an algorithm") else { continue };
        if !ALGORITHMS.contains(&text.text) {
            let message = format!("tokens signed with {} are not accepted", quoted(text.text));
            report.error_help(
                text.span,
                message,
                "the algorithms are HS256 (shared secret), RS256 and ES256 (public key)",
            );
            continue;
        }
        let symmetric = text.text == "HS256";
        if shared.is_some_and(|shared| shared != symmetric) {
            let message = match symmetric {
                true => "HS256 with a public key: anybody who has the key could sign tokens",
                false => "this algorithm needs a public key, and the keys are a shared secret",
            };
            report.error_help(
                text.span,
                message,
                "use HS256 with secret_env or secret_file, RS256 and ES256 with public_key_file or jwks_url",
            );
            continue;
        }
        algorithms.push(text.text.into());
    }
    (algorithms.len() == count).then_some(algorithms)
}
