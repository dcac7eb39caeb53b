//! Exceptions as data: what a client needs to show a remote error and to raise one like it, and never a pickle.

use serde::{Deserialize, Serialize};

/// A Python exception of an engine, flattened. The engine's glue writes it as JSON in exactly this shape.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
#[serde(default)]
pub struct RemoteException {
    /// The class's name: `ValueError`.
    pub type_name: String,
    /// The class's module: `builtins`.
    pub module: String,
    /// Qualified names of the class and its bases in method resolution order.
    pub mro: Vec<String>,
    /// `str(exception)`.
    pub message: String,
    /// Positional arguments.
    pub args: Vec<ExceptionArgument>,
    /// Further attributes (`errno`, `code`, …): name, value.
    #[serde(with = "attributes")]
    pub attributes: Vec<(String, ExceptionArgument)>,
    /// `__notes__`.
    pub notes: Vec<String>,
    /// The traceback, outermost call first, frames of the runtime removed.
    pub frames: Vec<ExceptionFrame>,
    /// `__cause__`.
    pub cause: Option<Box<RemoteException>>,
    /// `__context__`.
    pub context: Option<Box<RemoteException>>,
    /// `__suppress_context__`.
    pub suppress_context: bool,
    /// Where it was raised.
    pub rank: u32,
    /// Host of that rank.
    pub host: String,
    /// The text that Python would print, without colours.
    pub traceback: String,
}

/// One argument or attribute of an exception.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
#[serde(default)]
pub struct ExceptionArgument {
    /// `repr()`, bounded.
    pub repr: String,
    /// JSON text of the value when it is plain data, bounded.
    #[serde(with = "embedded_json")]
    pub json: Option<String>,
}

/// One frame of a traceback.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
#[serde(default)]
pub struct ExceptionFrame {
    /// File, or the name IPython gives a cell.
    pub file: String,
    /// Line, from 1.
    pub line: u32,
    /// Last line of the expression, if known.
    pub end_line: Option<u32>,
    /// Column, from 0, if known.
    pub column: Option<u32>,
    /// End column, if known.
    pub end_column: Option<u32>,
    /// Function name.
    pub function: String,
    /// The source line, if there is one.
    pub source: Option<String>,
}

impl RemoteException {
    /// An error that the runtime itself reports in the place of a Python exception.
    #[must_use]
    pub fn of_runtime(type_name: &str, message: impl Into<String>, rank: u32, host: &str) -> Self {
        let message = message.into();
        Self {
            type_name: type_name.to_owned(),
            module: "ipsteer.error".to_owned(),
            traceback: format!("{type_name}: {message}"),
            message,
            rank,
            host: host.to_owned(),
            ..Self::default()
        }
    }

    /// `type: message`, the last line of a traceback.
    #[must_use]
    pub fn summary(&self) -> String {
        if self.message.is_empty() { self.type_name.clone() } else { format!("{}: {}", self.type_name, self.message) }
    }
}

/// In JSON an attribute table is an object, on the wire a list of pairs.
mod attributes {
    use std::collections::BTreeMap;

    use serde::{Deserialize, Deserializer, Serialize, Serializer};

    use super::ExceptionArgument;

    pub(super) fn serialize<S: Serializer>(
        pairs: &[(String, ExceptionArgument)],
        serializer: S,
    ) -> Result<S::Ok, S::Error> {
        if serializer.is_human_readable() {
            pairs.iter().cloned().collect::<BTreeMap<_, _>>().serialize(serializer)
        } else {
            pairs.serialize(serializer)
        }
    }

    pub(super) fn deserialize<'de, D: Deserializer<'de>>(
        deserializer: D,
    ) -> Result<Vec<(String, ExceptionArgument)>, D::Error> {
        if deserializer.is_human_readable() {
            Ok(BTreeMap::deserialize(deserializer)?.into_iter().collect())
        } else {
            Vec::deserialize(deserializer)
        }
    }
}

/// In JSON the value stands as itself, on the wire as its JSON text: bincode cannot carry a value of unknown shape.
mod embedded_json {
    use serde::{Deserialize, Deserializer, Serialize, Serializer, de::Error as _, ser::Error as _};

    pub(super) fn serialize<S: Serializer>(json: &Option<String>, serializer: S) -> Result<S::Ok, S::Error> {
        if !serializer.is_human_readable() {
            return json.serialize(serializer);
        }
        match json {
            None => serializer.serialize_none(),
            Some(text) => {
                let value: serde_json::Value = serde_json::from_str(text).map_err(S::Error::custom)?;
                Some(value).serialize(serializer)
            }
        }
    }

    pub(super) fn deserialize<'de, D: Deserializer<'de>>(deserializer: D) -> Result<Option<String>, D::Error> {
        if !deserializer.is_human_readable() {
            return Option::<String>::deserialize(deserializer);
        }
        // The value `null` is meaningful (Python's None): only an absent field is None, which `default` supplies.
        let value = serde_json::Value::deserialize(deserializer)?;
        serde_json::to_string(&value).map(Some).map_err(D::Error::custom)
    }
}
