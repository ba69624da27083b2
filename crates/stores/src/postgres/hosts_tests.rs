#![allow(clippy::unwrap_used)]

use super::*;
use std::str::FromStr;

#[test]
fn each_server_has_all_that_was_said_but_the_other_hosts() {
    let url = "postgres://me:secret@one:5433,two:5434/usage?application_name=node&connect_timeout=3&tcp_user_timeout=4\
               &keepalives_idle=7&keepalives_interval=8&keepalives_retries=9&sslmode=require&channel_binding=require\
               &target_session_attrs=read-write&options=-c%20jit%3Doff";
    let both = Config::from_str(url).unwrap();
    for (index, expected) in ["one:5433", "two:5434"].into_iter().enumerate() {
        assert_eq!(only(&both, index), Config::from_str(&url.replace("one:5433,two:5434", expected)).unwrap());
    }
}
