//! `_native.Session`.

use bytes::Bytes;
use ipengine_protocol::event::InterruptReport;
use ipengine_protocol::{EngineId, EngineInfo, EngineStatus, InterruptTarget, Status, Targets};
use pyo3::exceptions::PyValueError;
use pyo3::prelude::*;
use pyo3::types::{PyDict, PyList};

use super::outcome::{Outcome, Output};
use super::{buffer, python_error, wait, work};
use crate::client::{Client, Instruction};
use crate::pending::now;

/// One connection to one gateway.
#[pyclass(module = "ipsteer._native", frozen)]
pub(super) struct Session {
    client: Client,
}

impl Session {
    pub(super) fn new(client: Client) -> Self {
        Self { client }
    }
}

#[pymethods]
impl Session {
    #[getter]
    fn client_id(&self) -> String {
        self.client.id().to_string()
    }

    #[getter]
    fn info<'py>(&self, py: Python<'py>) -> PyResult<Bound<'py, PyDict>> {
        let info = self.client.info().map_err(python_error)?;
        let engines = info
            .engines
            .iter()
            .map(|engine| engine_dict(py, engine))
            .collect::<PyResult<Vec<_>>>()?;
        let dict = PyDict::new(py);
        dict.set_item("cluster", info.cluster)?;
        dict.set_item("file", info.file.to_string_lossy())?;
        dict.set_item("url", info.address)?;
        dict.set_item("software", info.software)?;
        dict.set_item("engines", engines)?;
        dict.set_item("state", if info.ended.is_some() { "ended" } else { "running" })?;
        dict.set_item("end_reason", info.ended)?;
        Ok(dict)
    }

    #[pyo3(signature = (kind, targets, meta, blobs, each=None, one_of=false, label=None))]
    #[expect(clippy::too_many_arguments, reason = "the Python signature")]
    fn submit(
        &self,
        kind: &str,
        targets: Vec<u32>,
        meta: &str,
        blobs: Vec<Bound<'_, PyAny>>,
        each: Option<Vec<u32>>,
        one_of: bool,
        label: Option<String>,
    ) -> PyResult<u64> {
        let work = work::parse(kind, meta).map_err(|error| PyValueError::new_err(error.to_string()))?;
        let blobs = blobs
            .iter()
            .map(buffer::outgoing)
            .collect::<PyResult<Vec<Bytes>>>()?;
        let targets = targets.into_iter().map(EngineId).collect();
        let targets = if one_of {
            Targets::OneOf(targets)
        } else {
            Targets::All(targets)
        };
        self.client
            .submit(Instruction {
                targets,
                work,
                blobs,
                each,
                label,
            })
            .map_err(python_error)
    }

    #[pyo3(signature = (counters, timeout, first_error=false))]
    fn wait(
        &self,
        py: Python<'_>,
        counters: Vec<u64>,
        timeout: Option<f64>,
        first_error: bool,
    ) -> PyResult<bool> {
        let done = wait(py, timeout, |slice| {
            Ok(self
                .client
                .wait(&counters, Some(slice), first_error)?
                .then_some(()))
        })?;
        Ok(done.is_some())
    }

    #[pyo3(signature = (counter, seen, timeout))]
    fn wait_change(
        &self,
        py: Python<'_>,
        counter: u64,
        seen: usize,
        timeout: Option<f64>,
    ) -> PyResult<usize> {
        let mut latest = seen;
        let changed = wait(py, timeout, |slice| {
            latest = self.client.wait_change(counter, seen, Some(slice))?;
            Ok((latest > seen).then_some(latest))
        })?;
        Ok(changed.unwrap_or(latest))
    }

    fn finished(&self, counter: u64) -> PyResult<bool> {
        self.client.finished(counter).map_err(python_error)
    }

    fn outcomes(&self, counter: u64) -> PyResult<Vec<Option<Outcome>>> {
        let outcomes = self.client.outcomes(counter).map_err(python_error)?;
        Ok(outcomes
            .into_iter()
            .map(|arrived| arrived.map(Outcome::new))
            .collect())
    }

    fn running(&self, counter: u64) -> PyResult<Vec<u32>> {
        let running = self.client.running(counter).map_err(python_error)?;
        Ok(running.into_iter().map(|engine| engine.0).collect())
    }

    #[pyo3(signature = (counter, start=0))]
    fn outputs(&self, counter: u64, start: usize) -> PyResult<Vec<Output>> {
        let outputs = self.client.outputs(counter, start).map_err(python_error)?;
        Ok(outputs.into_iter().map(Output::from).collect())
    }

    fn submitted(&self, counter: u64) -> PyResult<f64> {
        self.client.submitted(counter).map_err(python_error)
    }

    #[pyo3(signature = (timeout))]
    fn next_finished(&self, py: Python<'_>, timeout: Option<f64>) -> PyResult<Vec<u64>> {
        let fresh = wait(py, timeout, |slice| {
            let fresh = self.client.next_finished(Some(slice))?;
            Ok((!fresh.is_empty()).then_some(fresh))
        })?;
        Ok(fresh.unwrap_or_default())
    }

    fn forget(&self, counters: Vec<u64>) -> PyResult<()> {
        self.client.forget(&counters).map_err(python_error)
    }

    #[pyo3(signature = (counters, targets, timeout))]
    fn interrupt<'py>(
        &self,
        py: Python<'py>,
        counters: Option<Vec<u64>>,
        targets: Option<Vec<u32>>,
        timeout: Option<f64>,
    ) -> PyResult<Vec<Bound<'py, PyDict>>> {
        let target = match (counters, targets) {
            (Some(counters), None) => InterruptTarget::Counters(counters),
            (None, Some(targets)) => InterruptTarget::Engines(targets.into_iter().map(EngineId).collect()),
            _ => return Err(PyValueError::new_err("give either counters or targets")),
        };
        let question = self.client.interrupt(target).map_err(python_error)?;
        let reports = wait(py, timeout, |slice| question.wait(Some(slice)))?;
        let reports = reports.ok_or_else(|| no_answer(timeout))?;
        reports.iter().map(|report| report_dict(py, report)).collect()
    }

    #[pyo3(signature = (timeout))]
    fn status<'py>(&self, py: Python<'py>, timeout: Option<f64>) -> PyResult<Bound<'py, PyDict>> {
        let question = self.client.status().map_err(python_error)?;
        let status = wait(py, timeout, |slice| question.wait(Some(slice)))?;
        status_dict(py, &status.ok_or_else(|| no_answer(timeout))?)
    }

    #[pyo3(signature = (timeout))]
    fn shutdown(&self, py: Python<'_>, timeout: Option<f64>) -> PyResult<()> {
        self.client.shutdown("asked by a client").map_err(python_error)?;
        let ended = wait(py, timeout, |slice| self.client.wait_end(Some(slice)))?;
        ended.map(drop).ok_or_else(|| no_answer(timeout))
    }

    fn close(&self, py: Python<'_>) -> PyResult<()> {
        match py.detach(|| self.client.close()) {
            // There is nothing to close in a fork, and closing is what a fork's clean-up does.
            Ok(()) | Err(crate::Error::Forked { .. }) => Ok(()),
            Err(error) => Err(python_error(error)),
        }
    }
}

fn no_answer(timeout: Option<f64>) -> PyErr {
    python_error(crate::Error::Timeout {
        seconds: timeout.unwrap_or(f64::INFINITY),
    })
}

fn engine_dict<'py>(py: Python<'py>, engine: &EngineInfo) -> PyResult<Bound<'py, PyDict>> {
    let dict = PyDict::new(py);
    dict.set_item("id", engine.id.0)?;
    dict.set_item("host", &engine.host)?;
    dict.set_item("pid", engine.pid)?;
    let python = engine.python;
    dict.set_item("python", PyList::new(py, [python.0, python.1, python.2])?)?;
    dict.set_item("mpi", &engine.mpi)?;
    dict.set_item("lost", engine.lost.as_ref().map(ToString::to_string))?;
    Ok(dict)
}

fn report_dict<'py>(py: Python<'py>, report: &InterruptReport) -> PyResult<Bound<'py, PyDict>> {
    let dict = PyDict::new(py);
    dict.set_item("engine", report.engine.0)?;
    dict.set_item("state", crate::report::interrupt_word(report.state))?;
    dict.set_item("detail", &report.detail)?;
    Ok(dict)
}

fn status_dict<'py>(py: Python<'py>, status: &Status) -> PyResult<Bound<'py, PyDict>> {
    // The gateway's clock may differ from ours: its times are moved by the difference.
    let shift = now() - super::outcome::seconds(status.now);
    let engines = status
        .engines
        .iter()
        .map(|engine| engine_status(py, engine, shift))
        .collect::<PyResult<Vec<_>>>()?;
    let clients = status.clients.iter().map(|(user, software)| {
        let dict = PyDict::new(py);
        dict.set_item("user", user)?;
        dict.set_item("software", software)?;
        Ok(dict)
    });
    let dict = PyDict::new(py);
    dict.set_item("cluster", &status.cluster)?;
    dict.set_item("engines", engines)?;
    dict.set_item("clients", clients.collect::<PyResult<Vec<_>>>()?)?;
    dict.set_item("end_reason", &status.ended)?;
    Ok(dict)
}

fn engine_status<'py>(py: Python<'py>, engine: &EngineStatus, shift: f64) -> PyResult<Bound<'py, PyDict>> {
    let dict = PyDict::new(py);
    dict.set_item("id", engine.id.0)?;
    dict.set_item("host", &engine.host)?;
    dict.set_item("pid", engine.pid)?;
    dict.set_item("state", &engine.state)?;
    dict.set_item("since", super::outcome::seconds(engine.since) + shift)?;
    let running = engine.instruction.as_ref();
    dict.set_item("instruction", running.map(|(_, summary, _)| summary))?;
    dict.set_item("instruction_id", running.map(|(id, _, _)| id.to_string()))?;
    dict.set_item("user", running.map(|(_, _, user)| user))?;
    dict.set_item("queue", engine.queued)?;
    dict.set_item("completed", engine.completed)?;
    dict.set_item("rss", engine.rss)?;
    dict.set_item("cpu", super::outcome::seconds(engine.cpu))?;
    dict.set_item("detail", &engine.detail)?;
    Ok(dict)
}
