//! Where a source is, read where secrets are.

use wire::catalog::Setting;

/// More than any URL or header has.
const MAX_BYTES: u64 = 16 * 1024;

/// The value of a setting, without white space around it.
pub(super) fn read(setting: &Setting) -> Result<String, String> {
    let text = match setting {
        Setting::Plain(text) => text.to_string(),
        Setting::Environment(name) => {
            std::env::var(&**name).map_err(|_| format!("the variable {name} is not set for this node"))?
        }
        Setting::File(path) => file(path).map_err(|error| format!("the file {path} can't be read: {error}"))?,
    };
    let text = text.trim();
    if text.is_empty() { Err("it is empty where its address should be".into()) } else { Ok(text.to_owned()) }
}

fn file(path: &str) -> std::io::Result<String> {
    use std::io::Read;
    let mut text = String::new();
    std::fs::File::open(path)?.take(MAX_BYTES).read_to_string(&mut text)?;
    Ok(text)
}
