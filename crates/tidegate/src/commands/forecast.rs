//! `tidegate forecast --jsonl`: questions on standard input, answers on standard output, line by line.

use crate::cli::ForecastArgs;
use anyhow::Context;
use forecast::{History, Measure, Question, Settings};
use std::{
    io::{self, BufRead, BufReader, ErrorKind, Read, Write},
    process::ExitCode,
};
use wire::forecast_lines::{self, Answer, Asked, LINE_MAX_BYTES, Refusal, Wrong};

/// Days of the path that is answered.
const PATH_DAYS: usize = 30;
/// Bytes read at once.
const BUFFER_BYTES: usize = 64 * 1024;

/// Answers every line of standard input. Ends with 1 where one of them was no question.
///
/// # Errors
/// Where standard input or output fails.
pub fn run(_: &ForecastArgs) -> anyhow::Result<ExitCode> {
    let input = BufReader::with_capacity(BUFFER_BYTES, io::stdin().lock());
    match answer_all(input, io::BufWriter::new(io::stdout().lock())) {
        Ok(0) => Ok(ExitCode::SUCCESS),
        Ok(_) => Ok(ExitCode::FAILURE),
        // Who read the answers went away (`| head`).
        Err(error) if error.kind() == ErrorKind::BrokenPipe => Ok(ExitCode::SUCCESS),
        Err(error) => Err(error).context("standard input or output"),
    }
}

/// Answers as lines come; how many were no questions.
fn answer_all<R: Read>(mut input: BufReader<R>, mut output: impl Write) -> io::Result<u64> {
    let (mut number, mut refused) = (0_u64, 0_u64);
    let mut line = Vec::new();
    while let Some(whole) = next_line(&mut input, &mut line)? {
        number += 1;
        if line.iter().all(u8::is_ascii_whitespace) && whole {
            continue;
        }
        let answer = match read(&line, whole) {
            Ok(asked) => answered(&asked),
            Err(wrong) => Err(wrong),
        };
        let text = answer.unwrap_or_else(|wrong| {
            refused += 1;
            forecast_lines::line(&Refusal { id: wrong.id.as_deref(), line: number, error: &wrong.detail })
        });
        writeln!(output, "{text}")?;
        // Whoever waits for this answer before the next question gets it now.
        if input.buffer().is_empty() {
            output.flush()?;
        }
    }
    output.flush()?;
    Ok(refused)
}

/// Takes the next line without its end; whether it is whole. What is longer than a line may be is read and dropped.
fn next_line(input: &mut impl BufRead, line: &mut Vec<u8>) -> io::Result<Option<bool>> {
    line.clear();
    let (mut any, mut whole) = (false, true);
    loop {
        let bytes = match input.fill_buf() {
            Err(error) if error.kind() == ErrorKind::Interrupted => continue,
            bytes => bytes?,
        };
        if bytes.is_empty() {
            return Ok(any.then_some(whole));
        }
        any = true;
        let end = bytes.iter().position(|byte| *byte == b'\n');
        let part = &bytes[..end.unwrap_or(bytes.len())];
        whole &= line.len() + part.len() <= LINE_MAX_BYTES;
        if whole {
            line.extend_from_slice(part);
        }
        let taken = part.len() + usize::from(end.is_some());
        input.consume(taken);
        if end.is_some() {
            return Ok(Some(whole));
        }
    }
}

fn read(line: &[u8], whole: bool) -> Result<Asked, Wrong> {
    if !whole {
        return Err(forecast_lines::too_long());
    }
    match std::str::from_utf8(line) {
        Ok(text) => forecast_lines::read(text),
        Err(error) => Err(Wrong { id: None, detail: format!("the line is not UTF-8: {error}") }),
    }
}

fn answered(asked: &Asked) -> Result<String, Wrong> {
    let wrong = |detail: String| Wrong { id: Some(asked.id.clone()), detail };
    let history = History::new(asked.history.iter().copied()).map_err(|error| wrong(error.to_string()))?;
    let Some(&(today, level)) = history.days().last() else {
        return Err(wrong("the history is empty".to_owned()));
    };
    let (measure, used) = match asked.period {
        None => (Measure::Level, level),
        Some((start, end)) => (Measure::Total { start, end }, history.sum(start, today)),
    };
    let question = Question { measure, history: &history, today, used, limit: Some(asked.limit), path_days: PATH_DAYS };
    // Whoever asks this way wants an answer however short the history is.
    let found = forecast::foresee(&question, &Settings { days_min: 1, ..Settings::default() });
    let shown = |day: Option<domain::day::Day>| day.map(|day| day.to_string());
    let dates = found.dates;
    Ok(forecast_lines::line(&Answer {
        id: &asked.id,
        predicted_breach_date: shown(dates.likely),
        lower: shown(dates.earliest),
        upper: shown(dates.latest),
        path: found.path.iter().map(|at| [at.low, at.middle, at.high]).collect(),
    }))
}

#[cfg(test)]
#[path = "forecast_tests.rs"]
mod tests;
