//! Exceptions as data: what a client needs to show a remote error and to raise one like it, and never a pickle.

use serde::ser::SerializeStruct;
use serde::{Deserialize, Serialize, Serializer};

/// Longest chain of causes and contexts that is read: each link takes stack, and the engine cuts longer ones before.
pub const MAX_CHAIN: u32 = 100;

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
    /// `__cause__`. Chains are at most [`MAX_CHAIN`] long.
    #[serde(deserialize_with = "chain::deserialize")]
    pub cause: Option<Box<RemoteException>>,
    /// `__context__`. Chains are at most [`MAX_CHAIN`] long.
    #[serde(deserialize_with = "chain::deserialize")]
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
#[derive(Clone, Debug, Default, PartialEq, Deserialize)]
#[serde(default)]
pub struct ExceptionArgument {
    /// `repr()`, bounded.
    pub repr: String,
    /// JSON text of the value when it is plain data, bounded. In JSON the field is absent when there is none: `null` is
    /// a value.
    #[serde(deserialize_with = "embedded_json::deserialize")]
    pub json: Option<String>,
}

impl Serialize for ExceptionArgument {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        let absent = serializer.is_human_readable() && self.json.is_none();
        let mut fields = serializer.serialize_struct("ExceptionArgument", if absent { 1 } else { 2 })?;
        fields.serialize_field("repr", &self.repr)?;
        if absent {
            fields.skip_field("json")?;
        } else {
            fields.serialize_field("json", &embedded_json::Embedded(self.json.as_deref()))?;
        }
        fields.end()
    }
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
        if self.message.is_empty() {
            self.type_name.clone()
        } else {
            format!("{}: {}", self.type_name, self.message)
        }
    }
}

/// Reads one link of a chain, not deeper than allowed: a loop of `raise … from` makes chains of any length.
mod chain {
    use std::cell::Cell;

    use serde::{Deserialize, Deserializer, de::Error as _};

    use super::{MAX_CHAIN, RemoteException};

    thread_local! {
        static DEPTH: Cell<u32> = const { Cell::new(0) };
    }

    pub(super) fn deserialize<'de, D: Deserializer<'de>>(
        deserializer: D,
    ) -> Result<Option<Box<RemoteException>>, D::Error> {
        let depth = DEPTH.get();
        if depth >= MAX_CHAIN {
            return Err(D::Error::custom("chain of exceptions is too long"));
        }
        DEPTH.set(depth + 1);
        let link = Option::deserialize(deserializer);
        DEPTH.set(depth);
        link
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
            pairs
                .iter()
                .cloned()
                .collect::<BTreeMap<_, _>>()
                .serialize(serializer)
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

    pub(super) struct Embedded<'a>(pub(super) Option<&'a str>);

    impl Serialize for Embedded<'_> {
        fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
            match self.0 {
                Some(text) if serializer.is_human_readable() => {
                    let value: serde_json::Value = serde_json::from_str(text).map_err(S::Error::custom)?;
                    value.serialize(serializer)
                }
                json => json.serialize(serializer),
            }
        }
    }

    pub(super) fn deserialize<'de, D: Deserializer<'de>>(
        deserializer: D,
    ) -> Result<Option<String>, D::Error> {
        if !deserializer.is_human_readable() {
            return Option::<String>::deserialize(deserializer);
        }
        // The value `null` is meaningful (Python's None): only an absent field is None, which `default` supplies.
        let value = serde_json::Value::deserialize(deserializer)?;
        serde_json::to_string(&value).map(Some).map_err(D::Error::custom)
    }
}
