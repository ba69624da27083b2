//! Processor time of a bench and of the PostgreSQL it works on.
#![allow(clippy::unwrap_used, missing_docs)]

/// The fields of a process's `stat` after its name.
fn stat(pid: &str) -> Vec<u64> {
    let text = std::fs::read_to_string(format!("/proc/{pid}/stat")).unwrap_or_default();
    let after_name = text.rsplit(')').next().unwrap_or_default();
    after_name.split_whitespace().map(|field| field.parse().unwrap_or(0)).collect()
}

fn ticks(stat: &[u64], fields: &[usize]) -> u64 {
    fields.iter().filter_map(|index| stat.get(*index)).sum()
}

/// Processor time of a server, its ended processes included, in seconds.
pub fn server_seconds(postmaster: u64) -> f64 {
    let own = stat(&postmaster.to_string());
    let mut sum = ticks(&own, &[11, 12, 13, 14]);
    for process in std::fs::read_dir("/proc").unwrap().flatten() {
        let name = process.file_name();
        let of_process = stat(&name.to_string_lossy());
        if of_process.get(1) == Some(&postmaster) {
            sum += ticks(&of_process, &[11, 12]);
        }
    }
    sum as f64 / 100.0
}

/// Processor time of this process, and of those it started and waited for, in seconds.
pub fn client_seconds() -> f64 {
    ticks(&stat("self"), &[11, 12, 13, 14]) as f64 / 100.0
}

/// The server that `.ci/postgres start` has started.
pub fn postmaster() -> u64 {
    let directory = std::env::var("TIDEGATE_TEST_POSTGRES_DIR").expect("eval \"$(.ci/postgres start)\" first");
    let pid_file = std::fs::read_to_string(format!("{directory}/data/postmaster.pid")).unwrap();
    pid_file.lines().next().unwrap().trim().parse().unwrap()
}
