//! Acceptance 1: the demo says what to try, and what it prints does what it says.

use crate::harness::{PATIENCE, binary, run_command};
use std::{
    io::{BufRead, BufReader},
    process::{Child, Command, Stdio},
    sync::mpsc,
    thread,
    time::{Duration, Instant},
};

/// A printed command and the status it is said to be answered with.
struct Step {
    says: String,
    command: String,
}

struct Demo {
    child: Child,
    lines: mpsc::Receiver<String>,
}

impl Demo {
    /// Starts the demo and reads what it prints until it is ready.
    fn start(example: &str) -> (Self, Vec<String>) {
        let listen = ["--gateway-listen", "127.0.0.1:0", "--api-listen", "127.0.0.1:0"];
        let mut command = binary();
        command
            .arg("demo")
            .arg(example)
            .args(listen)
            .stdin(Stdio::null())
            .stdout(Stdio::piped())
            .stderr(Stdio::piped());
        let mut child = command.spawn().unwrap();
        let stdout = BufReader::new(child.stdout.take().unwrap());
        let (sender, lines) = mpsc::channel();
        thread::spawn(move || stdout.lines().map_while(Result::ok).for_each(|line| drop(sender.send(line))));
        let mut printed = Vec::new();
        while !printed.last().is_some_and(|line: &String| line.contains("Ctrl-C")) {
            printed.push(lines.recv_timeout(PATIENCE).expect("the demo did not get ready"));
        }
        (Self { child, lines }, printed)
    }

    /// Ctrl-C; whether it ended well, and how fast.
    fn interrupt(mut self) -> Duration {
        let begun = Instant::now();
        let pid = self.child.id().to_string();
        assert!(Command::new("kill").args(["-INT", &pid]).status().unwrap().success());
        let status = self.child.wait().unwrap();
        assert!(status.success(), "{status}");
        assert!(self.lines.iter().any(|line| line.contains("Stopped")));
        begun.elapsed()
    }
}

fn steps(printed: &[String]) -> Vec<Step> {
    let pairs = printed.windows(2).filter(|pair| pair[0].starts_with("# ") && pair[1].starts_with("curl "));
    pairs.map(|pair| Step { says: pair[0].clone(), command: pair[1].clone() }).collect()
}

/// Runs a printed command as a user would paste it; its status and what it showed.
fn paste(command: &str) -> (String, String) {
    let mut shell = Command::new("sh");
    shell.args(["-c", &format!("{command} -s -w '\\n%{{http_code}}'")]);
    let (status, shown, problem) = run_command(&mut shell);
    assert!(status.success(), "{command}: {problem}");
    let (answer, code) = shown.rsplit_once('\n').unwrap();
    (code.to_owned(), answer.to_owned())
}

/// Plays an example; what its commands were answered, and what the demo told meanwhile.
fn check(example: &str) -> (Vec<String>, Vec<String>) {
    let (demo, printed) = Demo::start(example);
    assert!(printed.iter().any(|line| line.contains("gateway")) && printed.len() < 60, "a few lines, not a flood");
    let steps = steps(&printed);
    assert!(steps.len() >= 4, "{printed:?}");
    let (mut codes, mut answers) = (Vec::new(), Vec::new());
    for step in &steps {
        let (code, answer) = paste(&step.command);
        assert!(
            step.says.contains(&format!("({code})")),
            "{}\n{}\nanswered {code}:\n{answer}",
            step.says,
            step.command
        );
        codes.push(code);
        answers.push(answer);
    }
    for expected in ["200", "402", "429"] {
        assert!(codes.iter().any(|code| code == expected), "no command meets {expected}");
    }
    // What moved last is told within a moment.
    let mut told = Vec::new();
    while let Ok(line) = demo.lines.recv_timeout(Duration::from_secs(3)) {
        told.push(line);
    }
    assert!(demo.interrupt() < Duration::from_secs(10));
    (answers, told)
}

#[test]
fn the_chat_demo_does_what_it_says() {
    let (answers, told) = check("chat");
    let has = |parts: &[&str]| answers.iter().any(|answer| parts.iter().all(|part| answer.contains(part)));
    let warning = "event: tidegate.warning\n";
    assert!(
        has(&[warning, "data: {\"choices\":", "event: error\n", "period_limit_reached"]),
        "warned and cut: {answers:?}"
    );
    let finished = answers.iter().find(|answer| answer.contains(warning) && !answer.contains("event: error\n"));
    assert!(finished.is_some_and(|answer| answer.contains("data: [DONE]")), "warned and finished: {answers:?}");
    // Usage moved while it was running, and stands where it must.
    let hooli: Vec<&String> = told.iter().filter(|line| line.contains("hooli: conversation_time")).collect();
    assert!(hooli.iter().any(|line| line.contains(" 59:5") && line.contains("held ahead")), "{told:?}");
    assert!(hooli.last().is_some_and(|line| line.ends_with(" 60:00 of 60:00")), "{told:?}");
    let umbrella = told.iter().rfind(|line| line.contains("umbrella: conversation_time"));
    assert!(umbrella.is_some_and(|line| line.contains(" 300:0") && !line.contains("300:00 of")), "{told:?}");
}

#[test]
fn the_bakery_demo_does_what_it_says() {
    check("bakery");
}

#[test]
fn taken_ports_are_no_obstacle() {
    let taken = std::net::TcpListener::bind("127.0.0.1:0").unwrap();
    let address = taken.local_addr().unwrap().to_string();
    let mut command = binary();
    command.args(["demo", "--gateway-listen", &address, "--api-listen", &address]);
    let mut child = command.stdout(Stdio::piped()).stderr(Stdio::null()).spawn().unwrap();
    let lines = BufReader::new(child.stdout.take().unwrap()).lines();
    let last = lines.map_while(Result::ok).find(|line| line.contains("Ctrl-C") || line.contains("error"));
    assert!(last.is_some_and(|line| line.contains("Ctrl-C")));
    assert!(Command::new("kill").args(["-TERM", &child.id().to_string()]).status().unwrap().success());
    assert!(child.wait().unwrap().success());
}
