//! What had been counted when statistics were last reset: `smcd stats reset` changes nothing in other processes, it
//! only writes down where they stood.

use std::collections::BTreeMap;
use std::fs;
use std::io;
use std::path::PathBuf;

use serde::{Deserialize, Serialize};
use softrdma_bins_common::directory::{self, DirectoryError};
use softrdma_smc::statistics::Process;

use crate::totals::Totals;

const FILE: &str = "smcd-stats.json";

/// Why it cannot be written down.
#[derive(Debug, thiserror::Error)]
pub(crate) enum BaselineError {
    #[error(transparent)]
    Directory(#[from] DirectoryError),
    #[error("cannot write {path}: {source}")]
    Write { path: PathBuf, source: io::Error },
}

/// What each process had counted.
#[derive(Debug, Default, PartialEq, Serialize, Deserialize)]
pub(crate) struct Baseline {
    processes: BTreeMap<String, Totals>,
}

impl Baseline {
    /// What was written down last; nothing if nothing was, or it is not understood.
    pub(crate) fn load() -> Self {
        let text = fs::read_to_string(directory::path().join(FILE)).unwrap_or_default();
        serde_json::from_str(&text).unwrap_or_default()
    }

    /// What the processes have counted by now. Others keep what was written down of them.
    pub(crate) fn move_to(&mut self, processes: &[Process]) {
        self.processes.extend(processes.iter().map(|process| (key(process), Totals::of(&process.snapshot))));
        // Processes that are gone leave nothing behind.
        self.processes.retain(|key, _| is_there(key));
    }

    /// Writes it down, for this user.
    pub(crate) fn store(&self) -> Result<(), BaselineError> {
        let path = directory::create()?.join(FILE);
        let text = serde_json::to_string(self).unwrap_or_default();
        // Whoever reads at the same time has the old one or the new one.
        let new = path.with_extension(format!("{}.new", std::process::id()));
        let written = fs::write(&new, text).and_then(|()| fs::rename(&new, &path));
        written.map_err(|source| BaselineError::Write { path, source })
    }

    /// What the processes have counted since, all together.
    pub(crate) fn since(&self, processes: &[Process]) -> Totals {
        let mut all = Totals::default();
        for process in processes {
            let mut totals = Totals::of(&process.snapshot);
            if let Some(before) = self.processes.get(&key(process)) {
                totals.subtract(before);
            }
            all.add(&totals);
        }
        all
    }
}

fn is_there(key: &str) -> bool {
    key.split_once(' ').is_some_and(|(id, _)| PathBuf::from("/proc").join(id).exists())
}

/// A number that a later process has too is told apart by when it was started.
fn key(process: &Process) -> String {
    format!("{} {}", process.id, process.started)
}
