//! Everything that is printed goes through here.

use std::collections::BTreeMap;
use std::error::Error as _;
use std::io::{self, IsTerminal, Write};

use comfy_table::{Table, presets};
use ipengine_protocol::EngineId;
use serde_json::Value;

use super::failure::Failure;

/// Standard output and standard error.
#[derive(Debug)]
pub(super) struct Console {
    /// Print JSON.
    pub json: bool,
    /// Text without its line end yet, by engine and stream.
    open: BTreeMap<(EngineId, &'static str), String>,
}

impl Console {
    pub(super) fn new(json: bool) -> Self {
        Self {
            json,
            open: BTreeMap::new(),
        }
    }

    /// A line of the answer.
    pub(super) fn line(&mut self, text: &str) -> Result<(), Failure> {
        Ok(writeln!(io::stdout(), "{text}")?)
    }

    /// Bytes of the answer as they are.
    pub(super) fn raw(&mut self, bytes: &[u8]) -> Result<(), Failure> {
        let mut out = io::stdout();
        out.write_all(bytes)?;
        Ok(out.flush()?)
    }

    /// A JSON document on one line.
    pub(super) fn document(&mut self, value: &Value) -> Result<(), Failure> {
        self.line(&value.to_string())
    }

    /// A remark that is not part of the answer. Nobody may be there to read it.
    pub(super) fn note(&mut self, text: &str) {
        let _ = writeln!(io::stderr(), "{text}");
    }

    /// A remark that is of interest only while it is watched.
    pub(super) fn progress(&mut self, text: &str) {
        if io::stderr().is_terminal() && !self.json {
            self.note(text);
        }
    }

    /// Why the command failed, with all causes.
    pub(super) fn failure(&mut self, failure: &Failure) {
        if failure.is_quiet() {
            return;
        }
        let mut text = format!("ipsteer: {failure}");
        let mut cause = failure.source();
        while let Some(inner) = cause {
            text.push_str(&format!("\n  because: {inner}"));
            cause = inner.source();
        }
        self.note(&text);
    }

    /// Text of an engine's stream: printed as whole lines, each with its origin.
    pub(super) fn stream(&mut self, engine: EngineId, name: &'static str, text: &str) -> Result<(), Failure> {
        let mut pending = self.open.remove(&(engine, name)).unwrap_or_default();
        pending.push_str(text);
        let mut rest = pending.as_str();
        while let Some((line, after)) = rest.split_once('\n') {
            tagged_line(engine, name, line)?;
            rest = after;
        }
        if !rest.is_empty() {
            self.open.insert((engine, name), rest.to_owned());
        }
        Ok(())
    }

    /// Prints what has no line end and will get none.
    pub(super) fn flush(&mut self) -> Result<(), Failure> {
        for ((engine, name), text) in std::mem::take(&mut self.open) {
            tagged_line(engine, name, &text)?;
        }
        Ok(())
    }

    /// Text with a tag before its first line, further lines below it.
    pub(super) fn tagged(&mut self, tag: &str, engine: EngineId, text: &str) -> Result<(), Failure> {
        let separator = if text.contains('\n') { '\n' } else { ' ' };
        self.line(&format!(
            "[{tag}:{engine}]{separator}{}",
            text.trim_end_matches('\n')
        ))
    }

    /// A table.
    pub(super) fn table(&mut self, header: &[&str], rows: Vec<Vec<String>>) -> Result<(), Failure> {
        let mut table = Table::new();
        table.load_style(presets::NOTHING);
        table.set_header(header.to_vec());
        table.add_rows(rows);
        let lines: Vec<String> = table.lines().map(|line| line.trim_end().to_owned()).collect();
        lines.iter().try_for_each(|line| self.line(line))
    }
}

fn tagged_line(engine: EngineId, name: &'static str, line: &str) -> Result<(), Failure> {
    let line = line.strip_suffix('\r').unwrap_or(line);
    if name == "stderr" {
        // Standard error may be closed while the answer still has a reader.
        let _ = writeln!(io::stderr(), "[{name}:{engine}] {line}");
        Ok(())
    } else {
        Ok(writeln!(io::stdout(), "[{name}:{engine}] {line}")?)
    }
}
