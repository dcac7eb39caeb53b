//! How people name sets of engines: `all`, `0,2`, `-1`, `1:3`, `::2`, and these joined by commas.

use ipengine_protocol::EngineId;

use crate::Error;

/// Reads a target set for a world of `size` engines. The order given is kept.
///
/// # Errors
/// [`Error::TargetSyntax`], [`Error::UnknownEngine`], [`Error::RepeatedEngine`], [`Error::NoTargets`].
pub fn parse(text: &str, size: u32) -> Result<Vec<EngineId>, Error> {
    let mut engines: Vec<EngineId> = Vec::new();
    for part in text.split(',') {
        for engine in parse_part(part.trim(), size).ok_or_else(|| Error::TargetSyntax(text.to_owned()))?? {
            if engines.contains(&engine) {
                return Err(Error::RepeatedEngine(engine));
            }
            engines.push(engine);
        }
    }
    if engines.is_empty() {
        Err(Error::NoTargets)
    } else {
        Ok(engines)
    }
}

fn parse_part(part: &str, size: u32) -> Option<Result<Vec<EngineId>, Error>> {
    if part == "all" {
        return Some(Ok((0..size).map(EngineId).collect()));
    }
    if !part.contains(':') {
        let engine: i64 = part.parse().ok()?;
        return Some(single(engine, size).map(|engine| vec![engine]));
    }
    let fields = part.split(':').map(optional).collect::<Option<Vec<_>>>()?;
    match fields[..] {
        [start, stop] => Some(Ok(slice(start, stop, 1, size))),
        [_, _, Some(0)] => None,
        [start, stop, step] => Some(Ok(slice(start, stop, step.unwrap_or(1), size))),
        _ => None,
    }
}

fn optional(field: &str) -> Option<Option<i64>> {
    if field.is_empty() {
        Some(None)
    } else {
        field.trim().parse().ok().map(Some)
    }
}

fn single(engine: i64, size: u32) -> Result<EngineId, Error> {
    let place = if engine < 0 {
        engine.saturating_add(i64::from(size))
    } else {
        engine
    };
    match u32::try_from(place) {
        Ok(place) if place < size => Ok(EngineId(place)),
        _ => Err(Error::UnknownEngine { engine, size }),
    }
}

/// A slice as Python reads it.
fn slice(start: Option<i64>, stop: Option<i64>, step: i64, size: u32) -> Vec<EngineId> {
    let size = i64::from(size);
    let (lowest, highest) = if step > 0 { (0, size) } else { (-1, size - 1) };
    let bound = |value: i64| {
        let value = if value < 0 {
            value.saturating_add(size)
        } else {
            value
        };
        value.clamp(lowest, highest)
    };
    let (first, last) = if step > 0 {
        (lowest, highest)
    } else {
        (highest, lowest)
    };
    let mut at = start.map_or(first, bound);
    let stop = stop.map_or(last, bound);
    let mut engines = Vec::new();
    while (step > 0 && at < stop) || (step < 0 && at > stop) {
        engines.extend(u32::try_from(at).ok().map(EngineId));
        at = at.saturating_add(step);
    }
    engines
}

/// Names a set of engines shortly: `0-3, 7`.
#[must_use]
pub fn describe(engines: &[EngineId]) -> String {
    let mut sorted: Vec<u32> = engines.iter().map(|engine| engine.0).collect();
    sorted.sort_unstable();
    let runs = sorted.chunk_by(|a, b| a + 1 == *b);
    let name = |run: &[u32]| match run {
        [one] => one.to_string(),
        [a, b] => format!("{a}, {b}"),
        _ => format!("{}-{}", run[0], run[run.len() - 1]),
    };
    runs.map(name).collect::<Vec<_>>().join(", ")
}
