//! The guide from one machine to many, `docs/many-nodes.md`: its commands are run as they are written there, by a shell
//! in an empty folder. Only the ports are others, as those of the guide may be taken. Needs nginx, as the guide does.

use super::cluster::Server;
use crate::harness::binary;
use std::{
    fmt::Write,
    net::TcpListener,
    os::unix::process::CommandExt,
    path::Path,
    process::{Child, Command, Stdio},
};

const GUIDE: &str = concat!(env!("CARGO_MANIFEST_DIR"), "/../../docs/many-nodes.md");
const SECTION: &str = "## Two nodes behind nginx, on one machine\n";
const SHOWS: &str = "# shows: ";

/// A command of the guide, and what it must show.
#[derive(Debug, Default)]
struct Step {
    command: String,
    shows: Option<String>,
}

/// The section's commands, and the file it has written.
fn read_guide(guide: &str) -> (Vec<Step>, String) {
    let section = guide.split_once(SECTION).expect("the section is gone").1;
    let section = section.split("\n## ").next().unwrap();
    let (mut steps, mut file) = (Vec::<Step>::new(), String::new());
    let mut is_file = false;
    for line in section.lines() {
        let Some(code) = line.strip_prefix("    ") else {
            if !line.is_empty() {
                is_file = line.starts_with("`nginx.conf`");
            }
            continue;
        };
        if is_file {
            writeln!(file, "{code}").unwrap();
        } else if let Some(shows) = code.strip_prefix(SHOWS) {
            steps.last_mut().unwrap().shows = Some(shows.to_owned());
        } else {
            match steps.last_mut().filter(|step| step.command.ends_with('\\')) {
                Some(step) => write!(step.command, "\n{code}").unwrap(),
                None => steps.push(Step { command: code.to_owned(), shows: None }),
            }
        }
    }
    (steps, file)
}

/// One script, so that what is exported or started stays; each command's output goes to a file of its own.
fn script(steps: &[Step]) -> String {
    let mut script = String::new();
    for (number, step) in steps.iter().enumerate() {
        let command = &step.command;
        writeln!(script, "{{ {command}\n}} >step.{number} 2>&1 || {{ echo {number}; exit 1; }}").unwrap();
        if let Some(shows) = &step.shows {
            writeln!(script, "grep -qF '{shows}' step.{number} || {{ echo {number}; exit 1; }}").unwrap();
        }
    }
    script
}

/// The shell, and whatever it started.
struct Shell(Child);

impl Drop for Shell {
    fn drop(&mut self) {
        let group = format!("-{}", self.0.id());
        let _ = Command::new("kill").args(["-KILL", "--", &group]).stderr(Stdio::null()).status();
    }
}

fn free_port() -> u16 {
    TcpListener::bind("127.0.0.1:0").unwrap().local_addr().unwrap().port()
}

/// A folder with a link to the binary: it is first on the shell's path.
fn path_with_binary(folder: &Path) -> String {
    let program = binary().get_program().to_owned();
    std::fs::create_dir(folder.join("bin")).unwrap();
    std::os::unix::fs::symlink(program, folder.join("bin/tidegate")).unwrap();
    let path = std::env::var("PATH").unwrap();
    format!("{}:{path}:/usr/sbin:/sbin", folder.join("bin").display())
}

#[test]
fn the_guide_does_what_it_says() {
    let folder = tempfile::tempdir().unwrap();
    let path = path_with_binary(folder.path());
    for program in ["nginx", "psql", "createdb", "curl"] {
        let mut found = Command::new("sh");
        found.args(["-c", &format!("command -v {program}")]).env("PATH", &path).stdout(Stdio::null());
        assert!(
            found.status().unwrap().success(),
            "{program} is missing. ./test.sh installs it as root (Debian: nginx-light, postgresql)"
        );
    }
    let server = Server::start();
    let (who, at) = server.url.strip_prefix("postgres://").unwrap().split_once('@').unwrap();
    let (user, password) = who.split_once(':').unwrap();
    let port = at.split_once('/').unwrap().0.rsplit_once(':').unwrap().1;
    let (steps, mut file) = read_guide(&std::fs::read_to_string(GUIDE).unwrap());
    assert!(steps.len() > 25 && file.contains("proxy_pass"), "{steps:?}\n{file}");
    let mut commands = script(&steps).replace("5432", port);
    for guides in ["9080", "9081", "9082"] {
        assert!(commands.contains(guides) && file.contains(guides), "the guide no longer speaks of port {guides}");
        let ours = free_port().to_string();
        (commands, file) = (commands.replace(guides, &ours), file.replace(guides, &ours));
    }
    let work = folder.path().join("work");
    std::fs::create_dir(&work).unwrap();
    std::fs::write(work.join("nginx.conf"), file).unwrap();
    let mut shell = binary();
    shell.env("PATH", path).env("PGHOST", "127.0.0.1").env("PGPORT", port).env("PGUSER", user);
    shell.env("PGPASSWORD", password).current_dir(&work);
    let mut command = Command::new("sh");
    command.args(["-c", &commands]).current_dir(&work).stdin(Stdio::null()).stdout(Stdio::piped()).process_group(0);
    for (name, value) in shell.get_envs() {
        match value {
            Some(value) => command.env(name, value),
            None => command.env_remove(name),
        };
    }
    let mut shell = Shell(command.spawn().unwrap());
    let stdout = shell.0.stdout.take().unwrap();
    let status = shell.0.wait().unwrap();
    let said = std::io::read_to_string(stdout).unwrap_or_default();
    let failed = said.trim().parse().ok().and_then(|number: usize| Some((number, steps.get(number)?)));
    if let Some((number, step)) = failed {
        let shown = |number: usize| std::fs::read_to_string(work.join(format!("step.{number}"))).unwrap_or_default();
        let all: String = (0..number).map(shown).collect();
        panic!("{step:?}\nshowed:\n{}\nbefore:\n{all}", shown(number));
    }
    assert!(status.success(), "{status}: {said}");
}
