//! The JSON header of an instruction, as Python writes it, to [`Work`].

use std::collections::BTreeMap;

use ipengine_protocol::{PullFormat, PythonVersion, ValueHead, ValueKind, Work};
use serde::Deserialize;
use thiserror::Error;

/// Why a header is none.
#[derive(Debug, Error)]
pub(super) enum HeaderError {
    /// No such kind of instruction.
    #[error("there is no instruction '{0}'")]
    Kind(String),
    /// No such kind of value, or its own header does not fit it.
    #[error("there is no value of kind '{0}', or its header does not fit")]
    Value(String),
    /// Not the JSON that the kind asks for.
    #[error("header cannot be read: {0}")]
    Json(#[from] serde_json::Error),
}

#[derive(Deserialize)]
struct Execute {
    code: String,
    #[serde(default)]
    filename: Option<String>,
    #[serde(default)]
    silent: bool,
    #[serde(default = "yes")]
    store_history: bool,
    #[serde(default)]
    user_expressions: BTreeMap<String, String>,
}

#[derive(Deserialize)]
struct Apply {
    name: String,
    python: Option<(u8, u8)>,
    by_value: bool,
}

#[derive(Deserialize)]
struct Push {
    names: Vec<String>,
    values: Vec<Value>,
}

#[derive(Deserialize)]
struct Value {
    kind: String,
    #[serde(default)]
    meta: String,
    blobs: u32,
}

#[derive(Deserialize)]
struct Pickle {
    python: (u8, u8),
    by_value: bool,
}

#[derive(Deserialize)]
struct Ndarray {
    dtype: String,
    shape: Vec<u64>,
    order: String,
}

#[derive(Deserialize)]
struct Pull {
    names: Vec<String>,
    format: Format,
    single: bool,
}

#[derive(Deserialize)]
#[serde(rename_all = "lowercase")]
enum Format {
    Pickle,
    Repr,
    Json,
    Npy,
}

fn yes() -> bool {
    true
}

/// Reads the header of an instruction of this kind.
pub(super) fn parse(kind: &str, meta: &str) -> Result<Work, HeaderError> {
    Ok(match kind {
        "execute" => execute(serde_json::from_str(meta)?),
        "apply" => apply(serde_json::from_str(meta)?),
        "push" => push(serde_json::from_str(meta)?)?,
        "pull" => pull(serde_json::from_str(meta)?),
        "clear" => Work::Clear,
        other => return Err(HeaderError::Kind(other.to_owned())),
    })
}

fn execute(header: Execute) -> Work {
    let Execute {
        code,
        filename,
        silent,
        store_history,
        user_expressions,
    } = header;
    let user_expressions = user_expressions.into_iter().collect();
    Work::Execute {
        code,
        filename,
        silent,
        store_history,
        user_expressions,
    }
}

fn apply(header: Apply) -> Work {
    let Apply {
        name,
        python,
        by_value,
    } = header;
    Work::Apply {
        name,
        python: python.map(version),
        by_value,
    }
}

fn push(header: Push) -> Result<Work, HeaderError> {
    let values = header.values.into_iter().map(value).collect::<Result<_, _>>()?;
    Ok(Work::Push {
        names: header.names,
        values,
    })
}

fn pull(header: Pull) -> Work {
    let format = match header.format {
        Format::Pickle => PullFormat::Pickle,
        Format::Repr => PullFormat::Repr,
        Format::Json => PullFormat::Json,
        Format::Npy => PullFormat::Npy,
    };
    Work::Pull {
        names: header.names,
        format,
        single: header.single,
    }
}

fn value(header: Value) -> Result<ValueHead, HeaderError> {
    let kind = match header.kind.as_str() {
        "none" => ValueKind::Null,
        "pickle" => {
            let Pickle { python, by_value } = serde_json::from_str(&header.meta)?;
            ValueKind::Pickle {
                python: version(python),
                by_value,
            }
        }
        "json" => ValueKind::Json,
        "text" => ValueKind::Text,
        "bytes" => ValueKind::Bytes,
        "literal" => ValueKind::Literal,
        "npy" => ValueKind::Npy,
        "mime" => ValueKind::Mime,
        "ndarray" => {
            let Ndarray { dtype, shape, order } = serde_json::from_str(&header.meta)?;
            ValueKind::Ndarray {
                dtype,
                shape,
                fortran_order: order == "F",
            }
        }
        _ => return Err(HeaderError::Value(header.kind)),
    };
    Ok(ValueHead {
        kind,
        blobs: header.blobs,
    })
}

/// Only the minor version decides what may be loaded.
fn version((major, minor): (u8, u8)) -> PythonVersion {
    PythonVersion(major, minor, 0)
}
