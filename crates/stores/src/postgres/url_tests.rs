#![allow(clippy::unwrap_used)]

use super::*;

fn refused(url: &str) -> String {
    parse(url).unwrap_err().to_string()
}

#[test]
fn what_is_not_said_has_a_default() {
    let settings = parse("postgres://someone@db.example/usage").unwrap();
    assert_eq!(settings.schema, "tidegate");
    assert_eq!((settings.pool_max, settings.pgbouncer), (8, false));
    assert_eq!(settings.config.get_ssl_mode(), SslMode::Prefer);
    assert_eq!(settings.config.get_application_name(), Some("tidegate"));
    assert_eq!(settings.config.get_options(), Some("-c statement_timeout=10000"));
}

#[test]
fn everything_can_be_said() {
    let url = "postgres://a:b@h/d?sslmode=verify-full&sslrootcert=%2Fetc%2Fca.pem&pool_max=20&schema=usage_2\
               &statement_timeout=2500&pgbouncer=true&application_name=node-1&connect_timeout=3";
    let settings = parse(url).unwrap();
    assert_eq!(settings.trust, Trust::File("/etc/ca.pem".into()));
    assert_eq!(settings.config.get_ssl_mode(), SslMode::Require);
    assert_eq!((settings.pool_max, settings.pgbouncer, &*settings.schema), (20, true, "usage_2"));
    assert_eq!(settings.statement_timeout, Duration::from_millis(2500));
    assert_eq!(settings.config.get_application_name(), Some("node-1"));
    assert_eq!(settings.config.get_connect_timeout(), Some(&Duration::from_secs(3)));
    assert_eq!(settings.config.get_options(), None, "a pooler takes no settings of a session");
}

#[test]
fn a_certificate_is_checked_where_it_is_asked_for() {
    let trust = |query: &str| parse(&format!("postgres://a@h/d?{query}")).unwrap().trust;
    assert_eq!(trust("sslmode=require"), Trust::Anybody);
    assert_eq!(trust("sslmode=require&sslrootcert=ca.pem"), Trust::File("ca.pem".into()));
    assert_eq!(trust("sslmode=verify-full"), Trust::System);
    assert_eq!(trust("sslmode=verify-full&sslrootcert=system"), Trust::System);
    assert_eq!(trust("sslmode=require&sslrootcert=system"), Trust::System);
    assert_eq!(trust("sslrootcert=ca.pem"), Trust::File("ca.pem".into()));
    for unchecked in ["disable", "prefer"] {
        let message = refused(&format!("postgres://a@h/d?sslrootcert=ca.pem&sslmode={unchecked}"));
        assert!(message.contains("verify-full"), "{message}");
    }
}

#[test]
fn what_is_wrong_is_named_and_the_password_is_not() {
    let secret = "hunter2";
    for (query, names) in [
        ("sslmode=verify", "sslmode"),
        ("pool_max=1", "pool_max"),
        ("schema=Robert'); DROP", "schema"),
        ("statement_timeout=soon", "statement_timeout"),
        ("pgbouncer=maybe", "pgbouncer"),
        ("target_session_attrs=read-only", "target_session_attrs"),
        ("nonsense=1", "URL"),
    ] {
        let message = refused(&format!("postgres://me:{secret}@h/d?{query}"));
        assert!(message.contains(names), "{message}");
        assert!(!message.contains(secret), "{message}");
    }
    let message = refused(&format!("postgres://me:{secret}#x@h:port/d"));
    assert!(!message.contains(secret), "{message}");
    let settings = parse(&format!("postgres://me:{secret}@h/d")).unwrap();
    assert!(!format!("{settings:?}").contains(secret));
}

#[test]
fn several_servers_may_be_named_and_one_that_takes_writes_is_wanted() {
    for query in ["", "?target_session_attrs=read-write", "?target_session_attrs=primary"] {
        let settings = parse(&format!("postgres://a:b@one:5433,two/d{query}")).unwrap();
        assert_eq!(settings.config.get_hosts().len(), 2);
        assert_eq!(settings.config.get_ports(), [5433, 5432]);
        assert_eq!(settings.config.get_target_session_attrs(), TargetSessionAttrs::ReadWrite);
    }
}
