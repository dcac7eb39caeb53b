//! What an instruction asks an engine to do.

use serde::{Deserialize, Serialize};

use crate::{PythonVersion, ValueHead};

/// One instruction's work. The engine runs it on its main thread, in its one persistent namespace.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub enum Work {
    /// Run source text as a cell of IPython. Answers with [`crate::ValueKind::ExecuteReply`]. No blobs.
    Execute {
        /// The source.
        code: String,
        /// File name for tracebacks, when the source is a file's.
        filename: Option<String>,
        /// No `Out[n]`, no count, no display of the result.
        silent: bool,
        /// Keep it in `In` and `Out`.
        store_history: bool,
        /// Expressions to evaluate afterwards: name, source.
        user_expressions: Vec<(String, String)>,
    },
    /// Call a function. Blobs: pickle stream of `(f, args, kwargs)`, then its out-of-band buffers.
    Apply {
        /// The function's name, for status and error texts.
        name: String,
        /// The interpreter that pickled it; `None` only for streams made without Python.
        python: Option<PythonVersion>,
        /// Whether the stream carries code objects: refused by an engine of another minor version.
        by_value: bool,
    },
    /// Bind names in the namespace. Blobs: those of the values, in order.
    Push {
        /// The names; `a.b` sets an attribute.
        names: Vec<String>,
        /// Their values, one per name.
        values: Vec<ValueHead>,
    },
    /// Evaluate expressions in the namespace. No blobs.
    Pull {
        /// Python expressions, mostly names.
        names: Vec<String>,
        /// How the engine converts the result.
        format: PullFormat,
        /// Answer with the one value itself instead of a list.
        single: bool,
    },
    /// Empty the namespace. No blobs.
    Clear,
}

impl Work {
    /// A few words for status displays: `execute`, `apply f`, `push x, y`.
    #[must_use]
    pub fn summary(&self) -> String {
        match self {
            Self::Execute { code, .. } => format!("execute {}", first_line(code)),
            Self::Apply { name, .. } => format!("apply {name}"),
            Self::Push { names, .. } => format!("push {}", shorten(&names.join(", "))),
            Self::Pull { names, .. } => format!("pull {}", shorten(&names.join(", "))),
            Self::Clear => "clear".to_owned(),
        }
    }
}

/// How the engine converts a pulled value.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub enum PullFormat {
    /// Pickle 5 with out-of-band buffers: for Python clients.
    Pickle,
    /// `repr()` as text.
    Repr,
    /// JSON (numpy scalars and arrays as numbers and lists); an error when it cannot be.
    Json,
    /// The bytes of a `.npy` file.
    Npy,
}

fn first_line(code: &str) -> String {
    let line = code
        .lines()
        .map(str::trim)
        .find(|line| !line.is_empty())
        .unwrap_or("");
    shorten(line)
}

fn shorten(text: &str) -> String {
    const LONGEST: usize = 60;
    match text.char_indices().nth(LONGEST) {
        Some((cut, _)) => format!("{}…", &text[..cut]),
        None => text.to_owned(),
    }
}
