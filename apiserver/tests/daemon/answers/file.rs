//! Files of cases.

use std::path::{Path, PathBuf};
use std::time::{Duration, SystemTime};

use anyhow::{Context, Result};
use api::{Map, Value};
use testing::wait_until;

use super::compare;
use super::request::Sender;

/// One file: objects, requests that come first, and cases.
pub(super) struct File {
    path: PathBuf,
    content: Value,
}

impl File {
    /// All files of a folder, in order of their names.
    pub(super) fn read_all(folder: &Path) -> Result<Vec<Self>> {
        let mut paths: Vec<PathBuf> = std::fs::read_dir(folder)?
            .filter_map(|entry| Some(entry.ok()?.path()))
            .filter(|path| path.extension().is_some_and(|e| e == "json"))
            .collect();
        paths.sort();
        let read = |path: PathBuf| {
            let content =
                api::json::decode(&std::fs::read(&path)?).with_context(|| path.display().to_string())?;
            Ok(Self { path, content: content.value })
        };
        paths.into_iter().map(read).collect()
    }

    /// How many cases there are.
    pub(super) fn len(&self) -> usize {
        self.content.array_at(&["cases"]).len()
    }

    fn bases(&self) -> Map {
        self.content.get("bases").as_object().cloned().unwrap_or_default()
    }

    fn set_up(&self, sender: &Sender, bases: &Map) -> Result<()> {
        for request in self.content.array_at(&["setup"]) {
            let answer = sender.send(request, bases, &mut Vec::new())?;
            let code = answer.get("code").as_i64().unwrap_or_default();
            anyhow::ensure!([200, 201, 409].contains(&code), "{request}: {answer}");
            sender.settle(request)?;
        }
        // Managers of fields stand in order of their times, which are seconds: what comes next has another.
        let second = || SystemTime::now().duration_since(SystemTime::UNIX_EPOCH).map_or(0, |d| d.as_secs());
        let begun = second();
        wait_until("the next second", Duration::from_secs(5), || second() > begun)
    }

    /// Sends all requests and tells what differs from the answers.
    pub(super) fn check(&self, sender: &Sender) -> Result<Vec<String>> {
        let bases = self.bases();
        self.set_up(sender, &bases)?;
        let mut found = Vec::new();
        for case in self.content.array_at(&["cases"]) {
            let name = case.str_at(&["name"]);
            let mut saved = Vec::new();
            for (index, step) in steps(case).iter().enumerate() {
                let got = sender.send(step, &bases, &mut saved)?;
                let differences = compare::differences(step.get("answer"), &got);
                found.extend(differences.into_iter().map(|d| format!("{name} [{index}] {d}")));
            }
        }
        Ok(found)
    }

    /// Sends all requests and writes the answers into the file.
    pub(super) fn record(&mut self, sender: &Sender) -> Result<()> {
        let bases = self.bases();
        self.set_up(sender, &bases)?;
        let cases = self.content.at_mut(&["cases"]).and_then(Value::as_array_mut).context("no cases")?;
        for case in cases {
            let mut saved = Vec::new();
            let steps = match case.get("steps").is_null() {
                true => std::slice::from_mut(case),
                false => {
                    case.at_mut(&["steps"]).and_then(Value::as_array_mut).context("steps")?.as_mut_slice()
                }
            };
            for step in steps {
                let answer = sender.send(step, &bases, &mut saved)?;
                step.set(&["answer"], answer);
            }
        }
        Ok(std::fs::write(&self.path, self.print())?)
    }

    /// The file as text, with one case on a line.
    fn print(&self) -> String {
        let mut lines = Vec::new();
        let bases = self.bases();
        let bases: Vec<String> =
            bases.iter().map(|(name, base)| format!("{}: {base}", Value::from(name))).collect();
        lines.push(format!("\"bases\": {{\n{}\n}}", bases.join(",\n")));
        for list in ["setup", "cases"] {
            let items: Vec<String> = self.content.array_at(&[list]).iter().map(ToString::to_string).collect();
            lines.push(format!("\"{list}\": [\n{}\n]", items.join(",\n")));
        }
        format!("{{\n{}\n}}\n", lines.join(",\n"))
    }
}

/// The requests of a case.
fn steps(case: &Value) -> &[Value] {
    match case.get("steps").as_array() {
        Some(steps) => steps,
        None => std::slice::from_ref(case),
    }
}
