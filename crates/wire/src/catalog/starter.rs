//! The catalog that `tidegate init` writes.

/// A commented catalog to start from, in observe mode, in front of `upstream`.
pub fn starter(upstream: &str) -> String {
    let quoted = upstream.replace('\\', "\\\\").replace('"', "\\\"");
    include_str!("starter.toml").replace("http://127.0.0.1:3000", &quoted)
}
