//! Comma-separated values, as RFC 4180 has them: read whole, every record with the line it begins on.

/// A record and where it stands.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Record {
    /// The line it begins on, 1 for the first.
    pub line: usize,
    /// Its values.
    pub fields: Vec<String>,
}

/// Why a text is not CSV.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
#[error("line {line}: {why}")]
pub struct CsvError {
    /// Where.
    pub line: usize,
    /// What is wrong.
    pub why: &'static str,
}

/// The records of a text. Lines may end with `\n` or `\r\n`; empty ones are left out, and so is a byte-order mark.
///
/// # Errors
/// A quote that is not closed, or stands in the middle of a value.
pub fn records(text: &str) -> Result<Vec<Record>, CsvError> {
    let mut rest = text.strip_prefix('\u{feff}').unwrap_or(text);
    let (mut line, mut records) = (1, Vec::new());
    while !rest.is_empty() {
        let mut record = Record { line, fields: Vec::new() };
        loop {
            let (field, after) = field(rest, line)?;
            line += field.matches('\n').count();
            record.fields.push(field);
            match after.strip_prefix(',') {
                Some(next) => rest = next,
                None => {
                    rest = after;
                    break;
                }
            }
        }
        rest = rest.strip_prefix("\r\n").or(rest.strip_prefix('\n')).unwrap_or(rest);
        line += 1;
        if record.fields.iter().any(|field| !field.is_empty()) {
            records.push(record);
        }
    }
    Ok(records)
}

/// A value, and what stands after it: a comma, the end of the line, or nothing.
fn field(text: &str, line: usize) -> Result<(String, &str), CsvError> {
    let Some(mut rest) = text.strip_prefix('"') else {
        let end = text.find([',', '\n']).unwrap_or(text.len());
        let (value, after) = text.split_at(end);
        let (value, after) = match value.strip_suffix('\r') {
            Some(value) if !after.starts_with(',') => (value, after),
            _ => (value, after),
        };
        if value.contains('"') {
            return Err(CsvError { line, why: "a quote in a value that is not quoted; write it twice, within quotes" });
        }
        return Ok((value.to_owned(), after));
    };
    let mut value = String::new();
    loop {
        let end = rest.find('"').ok_or(CsvError { line, why: "a quote is not closed" })?;
        value.push_str(&rest[..end]);
        rest = &rest[end + 1..];
        match rest.strip_prefix('"') {
            Some(next) => {
                value.push('"');
                rest = next;
            }
            None if rest.is_empty() || rest.starts_with([',', '\n']) || rest.starts_with("\r\n") => {
                return Ok((value, rest));
            }
            None => return Err(CsvError { line, why: "something follows a value that is quoted" }),
        }
    }
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]

    use super::*;
    use proptest::prelude::*;

    fn read(text: &str) -> Vec<(usize, Vec<String>)> {
        records(text).unwrap().into_iter().map(|record| (record.line, record.fields)).collect()
    }

    #[test]
    fn values_lines_and_quotes() {
        assert_eq!(read(""), []);
        let text = "\u{feff}a,b\r\n\n1,\"x, \"\"y\"\"\nz\"\n,2";
        let owned = |fields: &[&str]| fields.iter().map(|field| (*field).to_owned()).collect::<Vec<_>>();
        assert_eq!(read(text), [(1, owned(&["a", "b"])), (3, owned(&["1", "x, \"y\"\nz"])), (5, owned(&["", "2"]))]);
        assert_eq!(records("a\n\"b").unwrap_err().line, 2);
        assert_eq!(records("a\"b").unwrap_err().line, 1);
        assert_eq!(records("\"a\"b").unwrap_err().line, 1);
    }

    proptest! {
        #[test]
        fn whatever_is_written_is_read(rows in prop::collection::vec(prop::collection::vec("[ -~\n]{1,9}", 1..4), 0..6)) {
            let quoted = |field: &String| format!("\"{}\"", field.replace('"', "\"\""));
            let line = |row: &Vec<String>| row.iter().map(quoted).collect::<Vec<_>>().join(",");
            let text = rows.iter().map(line).collect::<Vec<_>>().join("\r\n");
            let found: Vec<Vec<String>> = read(&text).into_iter().map(|(_, fields)| fields).collect();
            prop_assert_eq!(found, rows);
        }

        #[test]
        fn nothing_makes_it_panic(text in "[a\",\r\n]{0,40}") {
            let _ = records(&text);
        }
    }
}
