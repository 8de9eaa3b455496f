//! What goes to standard output.

use std::io::{ErrorKind, Write as _};

use serde::Serialize;

use crate::command_line::Output;
use crate::refused::Refused;

/// Prints a text and ends its line.
pub(crate) fn line(text: &str) -> Result<(), Refused> {
    let mut stdout = std::io::stdout().lock();
    match writeln!(stdout, "{text}").and_then(|()| stdout.flush()) {
        // Whoever reads has enough.
        Err(error) if error.kind() == ErrorKind::BrokenPipe => Ok(()),
        written => written.map_err(|error| Refused::of(format!("standard output: {error}"))),
    }
}

/// A report in the form that was asked for.
pub(crate) fn form(
    output: Output,
    report: &impl Serialize,
    table: impl FnOnce() -> String,
) -> Result<String, Refused> {
    match output {
        Output::Table => Ok(table().trim_end().to_owned()),
        Output::Json => serde_json::to_string_pretty(report).map_err(Refused::of),
        Output::Yaml => {
            serde_saphyr::to_string(report).map(|yaml| yaml.trim_end().to_owned()).map_err(Refused::of)
        }
    }
}
