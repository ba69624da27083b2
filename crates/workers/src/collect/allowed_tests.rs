#![allow(clippy::unwrap_used)]

use super::Allowed;
use std::fs;
use wire::catalog::Setting;

fn file(path: impl AsRef<std::path::Path>) -> Setting {
    Setting::File(path.as_ref().to_str().unwrap().into())
}

/// A directory that is allowed, with `in/inner/app` and, beside it, `out/secret`.
fn places() -> (tempfile::TempDir, Allowed) {
    let root = tempfile::tempdir().unwrap();
    for (directory, name) in [("in/inner", "app"), ("out", "secret")] {
        fs::create_dir_all(root.path().join(directory)).unwrap();
        fs::write(root.path().join(directory).join(name), format!(" {name}\n")).unwrap();
    }
    let allowed = Some(root.path().join("in"));
    (root, Allowed { secrets: allowed.clone(), sqlite: allowed, ..Allowed::default() })
}

#[test]
fn variables_are_read_by_their_beginning_alone() {
    let allowed = Allowed::default();
    for name in ["TIDEGATE_ADMIN_KEY", "PATH", "HOME", "tidegate_source_app", "XTIDEGATE_SOURCE_APP", ""] {
        let refused = allowed.read(&Setting::Environment(name.into())).unwrap_err();
        assert!(refused.contains("set TIDEGATE_SNAPSHOTS_VARIABLES"), "{name}: {refused}");
    }
    let unset = allowed.read(&Setting::Environment("TIDEGATE_SOURCE_OF_NOBODY".into())).unwrap_err();
    assert_eq!(unset, "the variable TIDEGATE_SOURCE_OF_NOBODY is not set for this node");
    let other = Allowed { variables: "PAT".into(), ..Allowed::default() };
    assert!(other.read(&Setting::Environment("PATH".into())).is_ok());
}

#[test]
fn without_a_directory_no_file_is_read() {
    let (root, _) = places();
    let refused = Allowed::default().read(&file(root.path().join("in/inner/app"))).unwrap_err();
    assert!(refused.contains("set TIDEGATE_SNAPSHOTS_SECRETS"), "{refused}");
    let refused = Allowed::default().sqlite_file(root.path().join("in/inner/app").to_str().unwrap()).unwrap_err();
    assert!(refused.contains("set TIDEGATE_SNAPSHOTS_SQLITE"), "{refused}");
}

#[test]
fn files_are_read_below_their_directory_alone() {
    let (root, allowed) = places();
    for path in ["in/inner/app", "in/./inner//app"] {
        assert_eq!(allowed.read(&file(root.path().join(path))).as_deref(), Ok("app"), "{path}");
    }
    assert_eq!(allowed.read(&file("inner/app")).as_deref(), Ok("app"), "relative to the directory");
    let root = root.path().to_str().unwrap();
    for path in ["out/secret", "in/../out/secret", "in/inner/../inner/app", "in/inner", "in/none", "in", "", "out"] {
        for path in [format!("{root}/{path}"), path.to_owned()] {
            assert!(allowed.read(&file(&path)).is_err_and(|why| why.contains("TIDEGATE_SNAPSHOTS_SECRETS")), "{path}");
            let refused = allowed.sqlite_file(&path).unwrap_err();
            assert!(refused.contains("TIDEGATE_SNAPSHOTS_SQLITE") && !refused.contains(root), "{path}: {refused}");
        }
    }
}

#[cfg(unix)]
#[test]
fn links_lead_only_where_files_may_lie() {
    use std::os::unix::fs::symlink;
    let (root, allowed) = places();
    let root = root.path().canonicalize().unwrap();
    symlink(root.join("out/secret"), root.join("in/link")).unwrap();
    symlink(root.join("out"), root.join("in/directory")).unwrap();
    symlink(root.join("in/inner"), root.join("in/current")).unwrap();
    symlink(root.join("in"), root.join("elsewhere")).unwrap();
    for path in ["link", "directory/secret"] {
        assert!(allowed.read(&file(path)).is_err(), "{path}");
        assert!(allowed.sqlite_file(path).is_err(), "{path}");
    }
    // As Kubernetes mounts secrets; and the directory itself may be found by a link.
    assert_eq!(allowed.read(&file("current/app")).as_deref(), Ok("app"));
    assert_eq!(allowed.sqlite_file("current/app"), Ok(root.join("in/inner/app")));
    let linked = Allowed { sqlite: Some(root.join("elsewhere")), ..Allowed::default() };
    for path in ["inner/app".to_owned(), format!("sqlite:{}", root.join("elsewhere/inner/app").display())] {
        assert_eq!(linked.sqlite_file(&path), Ok(root.join("in/inner/app")), "{path}");
    }
}

#[cfg(unix)]
#[test]
fn the_ledger_is_never_asked_by_any_of_its_names() {
    let (root, mut allowed) = places();
    let ledger = root.path().join("in/tidegate.db");
    fs::write(&ledger, "x").unwrap();
    fs::hard_link(&ledger, root.path().join("in/innocent.db")).unwrap();
    std::os::unix::fs::symlink(&ledger, root.path().join("in/linked.db")).unwrap();
    assert!(allowed.sqlite_file("tidegate.db").is_ok());
    allowed.ledger = Some(ledger);
    for name in ["tidegate.db", "innocent.db", "linked.db"] {
        assert!(allowed.sqlite_file(name).is_err_and(|why| why.contains("the ledger's own file")), "{name}");
    }
    assert!(allowed.sqlite_file("inner/app").is_ok());
}

#[test]
fn what_is_refused_is_told_before_it_is_asked() {
    let text = "[meters.a]\nkind = \"gauge\"\n[plans.free]\nrank = 0\n\
        [snapshots.sources.fine]\nkind = \"redis\"\nurl_env = \"TIDEGATE_SOURCE_CACHE\"\n\
        [snapshots.sources.variable]\nkind = \"postgres\"\nurl_env = \"APP\"\n\
        [snapshots.sources.header]\nkind = \"http\"\nurl = \"http://app\"\nauthorization_env = \"TIDEGATE_ADMIN_KEY\"\n\
        [snapshots.sources.secret]\nkind = \"postgres\"\nurl_file = \"app\"\n\
        [snapshots.sources.table]\nkind = \"sqlite\"\nurl = \"app.db\"";
    let rules = wire::catalog::load(text, "test").unwrap().snapshots;
    let told = Allowed::default().refusals(&rules);
    let names: Vec<&str> = told.iter().map(|text| text.split('"').nth(1).unwrap()).collect();
    assert_eq!(names, ["header", "secret", "table", "variable"], "{told:?}");
    let all = Allowed { variables: String::new(), secrets: Some("/".into()), sqlite: Some("/".into()), ledger: None };
    assert!(all.refusals(&rules).is_empty());
}
