//! `_native.Outcome` and `_native.Output`.

use std::sync::Arc;

use ipengine_protocol::{Outcome as Ended, ValueHead, ValueKind};
use pyo3::prelude::*;
use pyo3::types::PyMemoryView;
use serde_json::{Value, json};

use super::buffer;
use crate::pending::{self, Arrived};
use crate::report;

/// What one engine answered.
#[pyclass(module = "ipsteer._native", frozen)]
pub(super) struct Outcome {
    arrived: Arc<Arrived>,
}

impl Outcome {
    pub(super) fn new(arrived: Arc<Arrived>) -> Self {
        Self { arrived }
    }
}

#[pymethods]
impl Outcome {
    #[getter]
    fn engine(&self) -> u32 {
        self.arrived.engine.0
    }

    #[getter]
    fn status(&self) -> &'static str {
        report::status(&self.arrived.outcome)
    }

    #[getter]
    fn kind(&self) -> &'static str {
        match &self.arrived.outcome {
            Ended::Done(head) => kind_word(&head.kind),
            _ => "none",
        }
    }

    #[getter]
    fn meta(&self) -> String {
        match (&self.arrived.outcome, report::exception(&self.arrived)) {
            (Ended::Done(head), _) => value_meta(head).to_string(),
            (_, Some(exception)) => report::exception_json(&exception).to_string(),
            (_, None) => "{}".to_owned(),
        }
    }

    #[getter]
    fn started(&self) -> f64 {
        seconds(self.arrived.timing.started)
    }

    #[getter]
    fn completed(&self) -> f64 {
        seconds(self.arrived.timing.completed)
    }

    #[getter]
    fn received(&self) -> f64 {
        self.arrived.received
    }

    fn buffers<'py>(&self, py: Python<'py>) -> PyResult<Vec<Bound<'py, PyMemoryView>>> {
        self.arrived
            .blobs
            .iter()
            .map(|blob| buffer::incoming(py, blob))
            .collect()
    }

    fn __repr__(&self) -> String {
        format!(
            "<Outcome of engine {}: {}, {}>",
            self.engine(),
            self.status(),
            self.kind()
        )
    }
}

fn kind_word(kind: &ValueKind) -> &'static str {
    match kind {
        ValueKind::Null => "none",
        ValueKind::Pickle { .. } => "pickle",
        ValueKind::Json => "json",
        ValueKind::Text => "text",
        ValueKind::Bytes => "bytes",
        ValueKind::Literal => "literal",
        ValueKind::Ndarray { .. } => "ndarray",
        ValueKind::Npy => "npy",
        ValueKind::Mime => "mime",
        ValueKind::ExecuteReply => "execute_reply",
    }
}

fn value_meta(head: &ValueHead) -> Value {
    match &head.kind {
        ValueKind::Pickle { python, by_value } => {
            json!({"python": [python.0, python.1], "by_value": by_value})
        }
        ValueKind::Ndarray {
            dtype,
            shape,
            fortran_order,
        } => {
            json!({"dtype": dtype, "shape": shape, "order": if *fortran_order { "F" } else { "C" }})
        }
        _ => json!({}),
    }
}

/// Nanoseconds to seconds.
pub(super) fn seconds(nanoseconds: u64) -> f64 {
    nanoseconds as f64 / 1e9
}

/// One piece of output.
#[pyclass(module = "ipsteer._native", frozen)]
pub(super) struct Output {
    output: pending::Output,
}

impl From<pending::Output> for Output {
    fn from(output: pending::Output) -> Self {
        Self { output }
    }
}

#[pymethods]
impl Output {
    #[getter]
    fn engine(&self) -> u32 {
        self.output.engine.0
    }

    #[getter]
    fn kind(&self) -> &str {
        self.output.kind.as_str()
    }

    #[getter]
    fn text(&self) -> &str {
        &self.output.text
    }

    #[getter]
    fn time(&self) -> f64 {
        self.output.time
    }

    fn __repr__(&self) -> String {
        format!(
            "<Output of engine {}: {} {:?}>",
            self.engine(),
            self.kind(),
            self.text()
        )
    }
}
