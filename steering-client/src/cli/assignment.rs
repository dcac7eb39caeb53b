//! Values on the command line: `NAME=LITERAL`, `NAME:=JSON`, `NAME=@FILE`.

use std::io::{self, Read};
use std::path::{Path, PathBuf};

use bytes::Bytes;
use ipengine_protocol::{PythonVersion, ValueHead, ValueKind};
use thiserror::Error;

/// A name and where its value comes from.
#[derive(Clone, PartialEq, Debug)]
pub struct Assignment {
    /// What is bound: a name, or `a.b` for an attribute.
    pub name: String,
    /// The value.
    pub source: Source,
}

/// Where a value comes from.
#[derive(Clone, PartialEq, Debug)]
pub enum Source {
    /// Source of a Python literal; the engine evaluates it.
    Literal(String),
    /// JSON text.
    Json(String),
    /// A file, read as its extension says; `-` is standard input, as text.
    File(PathBuf),
}

/// Why an argument is no assignment.
#[derive(Debug, Error)]
pub enum AssignmentError {
    /// No `=`, or no name before it.
    #[error("'{0}' is no assignment: write NAME=LITERAL, NAME:=JSON or NAME=@FILE")]
    Form(String),
    /// What stands before `=` is no name.
    #[error("'{0}' is no Python name")]
    Name(String),
    /// What follows `:=` is no JSON.
    #[error("the value of {name} is no JSON")]
    Json {
        /// Which.
        name: String,
        /// Where it is wrong.
        #[source]
        source: serde_json::Error,
    },
    /// The file cannot be read.
    #[error("{} cannot be read", .path.display())]
    Read {
        /// Which.
        path: PathBuf,
        /// Why.
        #[source]
        source: io::Error,
    },
    /// The extension says nothing that we know.
    #[error("{}: what the file holds is told by .npy, .json, .txt or .pkl", .0.display())]
    Extension(PathBuf),
    /// The file does not hold what its extension says.
    #[error("{} is no {kind} file", .path.display())]
    Content {
        /// Which.
        path: PathBuf,
        /// What it should be.
        kind: &'static str,
    },
}

impl Assignment {
    /// Reads an argument.
    ///
    /// # Errors
    /// [`AssignmentError::Form`], [`AssignmentError::Name`], [`AssignmentError::Json`].
    pub fn parse(text: &str) -> Result<Self, AssignmentError> {
        let (left, right) = text
            .split_once('=')
            .ok_or_else(|| AssignmentError::Form(text.to_owned()))?;
        let (name, is_json) = match left.strip_suffix(':') {
            Some(name) => (name, true),
            None => (left, false),
        };
        let name = name.trim();
        if name.is_empty() {
            return Err(AssignmentError::Form(text.to_owned()));
        }
        if !name.split('.').all(is_identifier) {
            return Err(AssignmentError::Name(name.to_owned()));
        }
        let source = match right.strip_prefix('@') {
            _ if is_json => Source::Json(checked_json(name, right)?),
            Some(path) => Source::File(path.into()),
            None => Source::Literal(right.to_owned()),
        };
        Ok(Self {
            name: name.to_owned(),
            source,
        })
    }

    /// The value as it travels.
    ///
    /// # Errors
    /// Errors of reading a file.
    pub fn value(&self) -> Result<(ValueHead, Vec<Bytes>), AssignmentError> {
        let (kind, bytes) = match &self.source {
            Source::Literal(text) => (ValueKind::Literal, text.clone().into()),
            Source::Json(text) => (ValueKind::Json, text.clone().into()),
            Source::File(path) => read(path)?,
        };
        Ok((ValueHead { kind, blobs: 1 }, vec![bytes]))
    }
}

fn is_identifier(name: &str) -> bool {
    let mut characters = name.chars();
    let first = characters.next();
    first.is_some_and(|first| first == '_' || first.is_alphabetic())
        && characters.all(|character| character == '_' || character.is_alphanumeric())
}

fn checked_json(name: &str, text: &str) -> Result<String, AssignmentError> {
    match serde_json::from_str::<serde::de::IgnoredAny>(text) {
        Ok(_) => Ok(text.to_owned()),
        Err(source) => Err(AssignmentError::Json {
            name: name.to_owned(),
            source,
        }),
    }
}

fn read(path: &Path) -> Result<(ValueKind, Bytes), AssignmentError> {
    let failed = |source| AssignmentError::Read {
        path: path.to_owned(),
        source,
    };
    if path == Path::new("-") {
        let mut text = Vec::new();
        io::stdin().read_to_end(&mut text).map_err(failed)?;
        return Ok((ValueKind::Text, text.into()));
    }
    let kind = match path.extension().and_then(|extension| extension.to_str()) {
        Some("npy") => ValueKind::Npy,
        Some("json") => ValueKind::Json,
        Some("txt") => ValueKind::Text,
        // Whose pickle it is does not matter: a file's pickle carries data, not code objects.
        Some("pkl") => ValueKind::Pickle {
            python: PythonVersion(3, 0, 0),
            by_value: false,
        },
        _ => return Err(AssignmentError::Extension(path.to_owned())),
    };
    let bytes = Bytes::from(std::fs::read(path).map_err(failed)?);
    check_content(path, &kind, &bytes)?;
    Ok((kind, bytes))
}

/// A wrong file is told before it travels.
fn check_content(path: &Path, kind: &ValueKind, bytes: &[u8]) -> Result<(), AssignmentError> {
    let (name, fits) = match kind {
        ValueKind::Npy => ("npy", bytes.starts_with(b"\x93NUMPY")),
        ValueKind::Json => (
            "JSON",
            serde_json::from_slice::<serde::de::IgnoredAny>(bytes).is_ok(),
        ),
        ValueKind::Text => ("UTF-8 text", std::str::from_utf8(bytes).is_ok()),
        _ => ("pickle", bytes.ends_with(b".")),
    };
    if fits {
        Ok(())
    } else {
        Err(AssignmentError::Content {
            path: path.to_owned(),
            kind: name,
        })
    }
}
