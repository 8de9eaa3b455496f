//! Lines of a file, with their numbers and places; a line of CSV as its fields.

use std::fs::File;
use std::io::{self, BufRead as _, BufReader, Read as _, Seek as _, SeekFrom};

/// Longest line that is read: what is longer is no request.
const MAX_BYTES: u64 = 1 << 20;

/// One line that is not blank.
#[derive(Debug)]
pub(crate) struct Line {
    /// From 1.
    pub(crate) number: u64,
    /// Where it begins, in bytes.
    pub(crate) offset: u64,
    /// Its text, or why it has none.
    pub(crate) text: Result<String, &'static str>,
}

/// Reads a file line by line and never holds more than one.
#[derive(Debug)]
pub(crate) struct Lines {
    reader: BufReader<File>,
    offset: u64,
    number: u64,
}

impl Lines {
    /// From the beginning of a file.
    pub(crate) fn of(file: &File) -> io::Result<Self> {
        let mut reader = BufReader::with_capacity(1 << 16, file.try_clone()?);
        reader.seek(SeekFrom::Start(0))?;
        Ok(Self { reader, offset: 0, number: 0 })
    }

    /// The line that begins at a place that was met before.
    pub(crate) fn at(&mut self, offset: u64, number: u64) -> io::Result<Option<Line>> {
        let step = i64::try_from(i128::from(offset) - i128::from(self.offset)).unwrap_or_default();
        self.reader.seek_relative(step)?;
        self.offset = offset;
        self.number = number - 1;
        self.next_line()
    }

    /// The next line that is not blank.
    pub(crate) fn next_line(&mut self) -> io::Result<Option<Line>> {
        loop {
            let offset = self.offset;
            let mut bytes = Vec::new();
            self.offset += self.reader.by_ref().take(MAX_BYTES).read_until(b'\n', &mut bytes)? as u64;
            if bytes.is_empty() {
                return Ok(None);
            }
            self.number += 1;
            let whole = bytes.len() < MAX_BYTES as usize || bytes.ends_with(b"\n");
            if !whole {
                self.skip_line()?;
            }
            if let Some(text) = text(bytes, whole, self.number) {
                return Ok(Some(Line { number: self.number, offset, text }));
            }
        }
    }

    fn skip_line(&mut self) -> io::Result<()> {
        self.offset += self.reader.skip_until(b'\n')? as u64;
        Ok(())
    }
}

/// None for a blank line.
fn text(bytes: Vec<u8>, whole: bool, number: u64) -> Option<Result<String, &'static str>> {
    if !whole {
        return Some(Err("longer than 1 MiB: write one request per line"));
    }
    let Ok(text) = String::from_utf8(bytes) else { return Some(Err("not UTF-8: write the log as UTF-8")) };
    let text = if number == 1 { text.trim_start_matches('\u{feff}') } else { &text };
    let text = text.trim();
    (!text.is_empty()).then(|| Ok(text.to_owned()))
}

/// The fields of a line of CSV (RFC 4180), but that a field does not span lines. None when a quote is not closed.
pub(crate) fn fields(line: &str) -> Option<Vec<String>> {
    let mut fields = Vec::new();
    let mut rest = line;
    loop {
        let (field, after) = if let Some(quoted) = rest.trim_start().strip_prefix('"') {
            unquote(quoted)?
        } else {
            let end = rest.find(',').unwrap_or(rest.len());
            (rest[..end].trim().to_owned(), &rest[end..])
        };
        fields.push(field);
        match after.strip_prefix(',') {
            Some(next) => rest = next,
            None => return after.is_empty().then_some(fields),
        }
    }
}

/// A field up to its closing quote, and what follows.
fn unquote(quoted: &str) -> Option<(String, &str)> {
    let mut field = String::new();
    let mut rest = quoted;
    loop {
        let (text, after) = rest.split_once('"')?;
        field.push_str(text);
        match after.strip_prefix('"') {
            Some(next) => {
                field.push('"');
                rest = next;
            }
            None => return Some((field, after.trim_start())),
        }
    }
}

#[cfg(test)]
mod tests {
    use std::io::Write as _;

    use super::*;

    #[test]
    fn csv_fields_may_be_quoted() {
        let of = |line: &str| fields(line).unwrap();
        assert_eq!(of("1, 2 ,3"), ["1", "2", "3"]);
        assert_eq!(of(r#""a,b","say ""hi""" ,,x"#), ["a,b", r#"say "hi""#, "", "x"]);
        assert_eq!(of(""), [""]);
        for broken in ["\"open", "\"a\"b,c"] {
            assert_eq!(fields(broken), None, "{broken}");
        }
    }

    #[test]
    fn lines_have_numbers_and_can_be_read_again_in_any_order() {
        let mut file = tempfile::tempfile().unwrap();
        file.write_all("\u{feff}first\r\n\n  \nsecond\nthird".as_bytes()).unwrap();
        let mut lines = Lines::of(&file).unwrap();
        let mut met = Vec::new();
        while let Some(line) = lines.next_line().unwrap() {
            met.push((line.number, line.offset, line.text.unwrap()));
        }
        assert_eq!(
            met.iter().map(|(number, _, text)| (*number, text.as_str())).collect::<Vec<_>>(),
            [(1, "first"), (4, "second"), (5, "third")]
        );
        for (number, offset, text) in met.iter().rev() {
            assert_eq!(lines.at(*offset, *number).unwrap().unwrap().text.as_ref(), Ok(text));
        }
    }

    #[test]
    fn what_is_no_line_of_text_is_told_and_the_next_is_read() {
        let mut file = tempfile::tempfile().unwrap();
        file.write_all(b"\xff\xfe\n").unwrap();
        file.write_all(&vec![b'x'; 3 << 20]).unwrap();
        file.write_all(b"\nend\n").unwrap();
        let mut lines = Lines::of(&file).unwrap();
        let mut next = || lines.next_line().unwrap().unwrap().text;
        assert!(next().unwrap_err().contains("UTF-8"));
        assert!(next().unwrap_err().contains("1 MiB"));
        assert_eq!(next().unwrap(), "end");
    }
}
