//! A power cut while the slots are switched: what the disk may hold then, one state after the other, and a start of the
//! unit with each.
//!
//! `Slots::write` syncs the new file before it gets its name, and the directory after. So between two fsyncs the disk
//! has the old slots, or the new ones, and beside them any part of the file that is written: what was not synced may be
//! there, be zeros, or not be there. A kill keeps all that was written, so the states are made here.

use std::fs;
use std::path::Path;

use anyhow::Result;
use hermes_gateway::slots::{Slots, Trial};

use crate::rows::{NEW, OLD};

/// What the disk holds.
pub struct Disk {
    /// When the power was cut.
    pub when: String,
    slots: Vec<u8>,
    unnamed: Option<Vec<u8>>,
}

/// What a power cut may leave of the switches of an update: to its trial, and to its proof.
pub fn cuts() -> Result<Vec<Disk>> {
    let proven = |version: &str| Some(version.to_owned());
    let before = Slots { proven: proven(OLD), ..Slots::default() };
    let trial = Slots {
        trial: Some(Trial { version: NEW.to_owned(), boots_left: 1 }),
        proven: proven(OLD),
        ..Slots::default()
    };
    let after = Slots { proven: proven(NEW), previous: proven(OLD), ..Slots::default() };
    let (before, trial, after) = (bytes(&before)?, bytes(&trial)?, bytes(&after)?);
    let mut cuts = Vec::new();
    for (name, old, new) in [("to the trial", &before, &trial), ("to the proof", &trial, &after)] {
        let half = new[..new.len() / 2].to_vec();
        for (step, slots, unnamed) in [
            ("before it begins", old, None),
            ("when the file is made", old, Some(Vec::new())),
            ("when half is written", old, Some(half)),
            ("when it is written and not synced", old, Some(vec![0; new.len()])),
            ("when it is synced and has no name", old, Some(new.clone())),
            ("when it has its name", new, None),
        ] {
            cuts.push(Disk { when: format!("{name}, {step}"), slots: slots.clone(), unnamed });
        }
    }
    Ok(cuts)
}

impl Disk {
    /// Makes `versions` look like this.
    pub fn put(&self, versions: &Path) -> Result<()> {
        fs::write(versions.join("slots"), &self.slots)?;
        let unnamed = versions.join(".slots.new");
        match &self.unnamed {
            Some(bytes) => fs::write(unnamed, bytes)?,
            None => {
                let _is_not_there = fs::remove_file(unnamed);
            }
        }
        Ok(())
    }
}

fn bytes(slots: &Slots) -> Result<Vec<u8>> {
    let dir = tempfile::tempdir()?;
    slots.write(dir.path())?;
    Ok(fs::read(dir.path().join("slots"))?)
}
