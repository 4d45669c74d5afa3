//! What the user sees: results on standard output, everything else on standard error.
//!
//! | standard output is | results |
//! |---|---|
//! | a terminal | tables and lines for people, control characters made visible |
//! | anything else, or `--json` | JSON, one object a line |

use std::io::{self, IsTerminal as _, Write as _};

use anstyle::{AnsiColor, Style};
use comfy_table::{Cell, ContentArrangement, ContentLineStyle, LineStyle, Table, TableStyle};
use serde::Serialize;

use crate::args::{Global, When};
use crate::failure::Failure;

pub(crate) const GOOD: Style = AnsiColor::Green.on_default();
pub(crate) const WARN: Style = AnsiColor::Yellow.on_default();
pub(crate) const BAD: Style = AnsiColor::Red.on_default().bold();
pub(crate) const FAINT: Style = Style::new().dimmed();
pub(crate) const HEAD: Style = Style::new().bold();

/// Columns and one line below their names.
const TABLE: TableStyle = TableStyle::new()
    .header_lines(ContentLineStyle::none())
    .header_separator(LineStyle::none().fill('─').junction('─'))
    .content_lines(ContentLineStyle::none());

/// Narrower terminals get their tables unwrapped.
const NARROWEST: u16 = 40;

/// The ways out of the program.
pub(crate) struct Ui {
    json: bool,
    json_asked: bool,
    color_out: bool,
    color_err: bool,
    quiet: bool,
    out: io::BufWriter<Box<dyn io::Write + Send>>,
}

impl Ui {
    pub(crate) fn new(global: &Global) -> Self {
        let auto = std::env::var_os("NO_COLOR").is_none_or(|v| v.is_empty())
            && std::env::var_os("TERM").is_none_or(|v| v != "dumb");
        let color = |terminal: bool| match global.color {
            When::Always => true,
            When::Never => false,
            When::Auto => auto && terminal,
        };
        let terminal = io::stdout().is_terminal();
        Self {
            json: global.json || !terminal,
            json_asked: global.json,
            color_out: color(terminal) && !global.json,
            color_err: color(io::stderr().is_terminal()) && !global.json,
            quiet: global.quiet,
            out: io::BufWriter::with_capacity(64 << 10, Box::new(io::stdout())),
        }
    }

    /// JSON lines into `out`, and nothing on standard error.
    #[cfg(test)]
    pub(crate) fn silent(out: impl io::Write + Send + 'static) -> Self {
        Self {
            json: true,
            json_asked: true,
            color_out: false,
            color_err: false,
            quiet: true,
            out: io::BufWriter::new(Box::new(out)),
        }
    }

    /// Whether results are JSON lines.
    pub(crate) fn is_json(&self) -> bool {
        self.json
    }

    /// Whether a progress bar may be drawn: somebody looks, and it would not stand between machine-readable lines.
    pub(crate) fn may_draw(&self) -> bool {
        !self.quiet && !self.json_asked && io::stderr().is_terminal()
    }

    /// Whether the user can be asked.
    pub(crate) fn may_ask(&self) -> bool {
        !self.json_asked && io::stdin().is_terminal() && io::stderr().is_terminal()
    }

    /// One JSON line.
    pub(crate) fn json(&mut self, value: &impl Serialize) -> Result<(), Failure> {
        serde_json::to_writer(&mut self.out, value)
            .map_err(io::Error::from)
            .map_err(|e| Failure::output(&e))?;
        self.bytes(b"\n")
    }

    /// Bytes as they are, a whole line or part of one.
    pub(crate) fn bytes(&mut self, bytes: &[u8]) -> Result<(), Failure> {
        self.out.write_all(bytes).map_err(|e| Failure::output(&e))
    }

    /// A line for people, already styled by [`Ui::style`].
    pub(crate) fn line(&mut self, text: &str) -> Result<(), Failure> {
        self.bytes(text.as_bytes())?;
        self.bytes(b"\n")
    }

    /// A table for people.
    pub(crate) fn table(&mut self, head: &[&str], rows: &[Vec<String>]) -> Result<(), Failure> {
        let mut table = Table::new();
        table.load_style(TABLE);
        // Some terminals do not tell their width, or say 0; wrapping at nothing is worse than not wrapping.
        if table.width().is_some_and(|width| width >= NARROWEST) {
            table.set_content_arrangement(ContentArrangement::Dynamic);
        }
        let bold = self.color_out;
        table.set_header(head.iter().map(|h| {
            let cell = Cell::new(h);
            if bold { cell.add_attribute(comfy_table::Attribute::Bold) } else { cell }
        }));
        if !self.color_out {
            table.force_no_tty();
        }
        for row in rows {
            table.add_row(row.iter().map(|cell| visible(cell)));
        }
        self.line(&table.to_string())
    }

    /// Text in a style, for standard output.
    pub(crate) fn style(&self, style: Style, text: &str) -> String {
        styled(self.color_out, style, text)
    }

    /// What was written reaches the reader now.
    pub(crate) fn flush(&mut self) -> Result<(), Failure> {
        self.out.flush().map_err(|e| Failure::output(&e))
    }

    /// A remark on standard error, unless `--quiet`.
    pub(crate) fn note(&self, text: &str) {
        if !self.quiet {
            self.stderr(&format!("eb: {}", visible(text)));
        }
    }

    /// A summary on standard error, unless `--quiet`: JSON with `--json`.
    pub(crate) fn summary(&self, text: &str, json: &impl Serialize) {
        if self.quiet {
            return;
        }
        match serde_json::to_string(json) {
            Ok(json) if self.json_asked => self.stderr(&json),
            _ => self.stderr(text),
        }
    }

    /// A failure on standard error.
    pub(crate) fn failure(&self, failure: &Failure) {
        if self.json_asked {
            self.stderr(&failure.to_json().to_string());
        } else {
            let name = styled(self.color_err, BAD, "eb:");
            let line = failure.to_string();
            self.stderr(&format!("{name} {}", visible(&line.replace(['\n', '\r'], " "))));
        }
    }

    /// Nothing can be done about a standard error that does not take it.
    fn stderr(&self, line: &str) {
        let _ = writeln!(io::stderr().lock(), "{line}");
    }

    /// A question on standard error; `true` for an answer that starts with y.
    pub(crate) fn ask(&self, question: &str) -> Result<bool, Failure> {
        let _ = write!(io::stderr().lock(), "{question} [y/N] ");
        let mut answer = String::new();
        io::stdin()
            .read_line(&mut answer)
            .map_err(|e| Failure::failed("input", format!("cannot read the answer: {e}")))?;
        Ok(answer.trim_start().starts_with(['y', 'Y']))
    }
}

fn styled(color: bool, style: Style, text: &str) -> String {
    if color { format!("{style}{text}{style:#}") } else { text.to_owned() }
}

/// Text with its control characters made visible, so that what lies in a log cannot drive the terminal.
pub(crate) fn visible(text: &str) -> String {
    if !text.chars().any(char::is_control) {
        return text.to_owned();
    }
    text.chars().fold(String::with_capacity(text.len() + 8), |mut out, c| {
        if c.is_control() {
            out.extend(c.escape_default());
        } else {
            out.push(c);
        }
        out
    })
}

/// A number with its thousands apart.
pub(crate) fn count(n: u64) -> String {
    let digits = n.to_string();
    let mut out = String::with_capacity(digits.len() + digits.len() / 3);
    for (i, c) in digits.chars().enumerate() {
        if i > 0 && (digits.len() - i).is_multiple_of(3) {
            out.push(',');
        }
        out.push(c);
    }
    out
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_lies_in_a_log_cannot_drive_the_terminal() {
        assert_eq!(visible("a\u{1b}[31mb\u{9b}1mä\n"), "a\\u{1b}[31mb\\u{9b}1mä\\n");
        assert_eq!(visible("plain"), "plain");
    }

    #[test]
    fn numbers_are_grouped_by_thousands() {
        assert_eq!([count(0), count(999), count(1000), count(1_234_567)], ["0", "999", "1,000", "1,234,567"]);
    }
}
