//! Planned machines of a host: kept, listed, edited, validated again, abandoned.

use std::path::Path;

use serde::{Deserialize, Serialize};
use store::{Condition, Operation};
use uuid::Uuid;

use super::plan::{Plan, Surroundings, plan};
use crate::cancel::Cancel;
use crate::error::{Error, Reason, Result};
use crate::finding::{Finding, Severity, Verdict};
use crate::host::Host;
use crate::planned::{ImportRequest, PlannedEdit};
use crate::record::{self, MachineRecord, Origin, PLANNED, PlannedRecord, machine_key};

/// A planned machine as seen from outside.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct PlannedView {
    /// Its record.
    pub record: PlannedRecord,
    /// One word for its findings.
    pub verdict: Verdict,
}

impl From<PlannedRecord> for PlannedView {
    fn from(record: PlannedRecord) -> Self {
        Self { verdict: Verdict::of(&record.findings), record }
    }
}

impl Host {
    /// Looks at a package as an import here would: nothing is written.
    ///
    /// # Errors
    /// There is no package, or its configuration is not one.
    pub fn look(&self, request: &ImportRequest) -> Result<Plan> {
        self.look_until(request, &Cancel::default())
    }

    fn look_until(&self, request: &ImportRequest, cancel: &Cancel) -> Result<Plan> {
        let switches = self.switches()?;
        let target =
            request.to.clone().or_else(|| request.root.clone()).unwrap_or_else(|| self.default_root());
        let free = free_bytes(&target);
        plan(
            request,
            &Surroundings {
                facts: &self.facts,
                switches: &switches,
                offers: &|| Some(self.offers().clone()),
                exists: &|id| {
                    matches!(record::get::<MachineRecord>(&*self.store, &machine_key(id)), Ok(Some(_)))
                },
                ids: &|| self.fresh_id(),
                target: free.map(|free| (target, free)),
                cancel,
            },
        )
    }

    /// Looks at a package and returns what would be kept of it, without keeping it.
    ///
    /// # Errors
    /// As [`Self::look`].
    pub fn import_dry_run(&self, request: &ImportRequest) -> Result<PlannedView> {
        let found = self.look(request)?;
        let nothing = Origin {
            configuration: crate::blob::BlobId(String::new()),
            form: form_name(found.form).to_owned(),
            runtime_state: None,
            guest_state: None,
            source: found.package.root.clone(),
        };
        Ok(planned(self.now(), request, found, nothing).into())
    }

    /// Imports a package: looks at it and keeps it as a planned machine.
    ///
    /// A request with an id of its own can be repeated: the planned machine that it made is given again.
    ///
    /// # Errors
    /// As [`Self::look`], or the same machine is planned already.
    pub fn import(&self, request: &ImportRequest) -> Result<PlannedView> {
        let request = absolute(&ImportRequest { at_once: false, ..request.clone() })?;
        if let Some(id) = request.id
            && let Ok((record, _)) = self.planned_record(id)
            && record.request == request
        {
            return Ok(record.into());
        }
        let found = self.look(&request)?;
        let cell = self.cell(found.id);
        let _held = cell.lock();
        self.drop_unbegun_of(found.id)?;
        self.keep(&request, found).map(PlannedView::from)
    }

    /// Imports a package and makes a machine of it: one job. Nobody sees a planned machine meanwhile, and none is left when
    /// it fails, is cancelled, or the host dies before the job is on record.
    ///
    /// # Errors
    /// As [`Self::look`] and [`Self::realize`]; or the package was adopted before, and would be again under the same id.
    pub fn import_at_once(&self, request: &ImportRequest, owner: &str) -> Result<Uuid> {
        let request = absolute(&ImportRequest { at_once: true, ..request.clone() })?;
        let found = self.look(&request)?;
        if request.adopt && !request.new_id && found.package.is_live() {
            let directory = found.package.root.display();
            let message =
                format!("`{directory}` was imported in place already: its export is a machine's now");
            return Err(Error::new(Reason::InvalidArgument, message)
                .hint("give the machine a new id, or import a copy"));
        }
        refuse_unready(&found.settings.name, &found.findings, |fix| {
            format!("import with {fix}, by way of a planned machine")
        })?;
        // Held until the job is on record: what has none by then is nobody's.
        let cell = self.cell(found.id);
        let _held = cell.lock();
        self.drop_unbegun_of(found.id)?;
        let record = self.keep(&request, found)?;
        self.submit_realize(record.id, owner).inspect_err(|_| {
            if let Err(e) = self.abandon_planned(record.id) {
                tracing::warn!(machine = %record.id, "an import that did not begin is left: {}", e.chain());
            }
        })
    }

    /// Forgets imports in one go that no job makes: the host died before there was one, or it was cancelled before it began.
    pub(crate) fn drop_unbegun(&self) -> Result<()> {
        let all: Vec<PlannedRecord> = record::list(&*self.store, PLANNED)?;
        all.iter().filter(|record| record.request.at_once).try_for_each(|r| self.drop_unbegun_of(r.id))
    }

    fn drop_unbegun_of(&self, id: Uuid) -> Result<()> {
        match self.planned_record(id) {
            Ok((record, _)) if record.request.at_once && self.refuse_busy(id, "abandon").is_ok() => {
                self.abandon_planned(id)
            }
            _ => Ok(()),
        }
    }

    pub(super) fn keep(&self, request: &ImportRequest, found: Plan) -> Result<PlannedRecord> {
        let origin = self.keep_origin(&found)?;
        let record = planned(self.now(), request, found, origin);
        let key = planned_key(record.id);
        let put = record::put(key.clone(), &record)?;
        if !record::commit(&*self.store, vec![Condition::Absent(key)], vec![put])? {
            return Err(Error::new(
                Reason::AlreadyExists,
                format!("a planned machine with the id {} is here already", record.id),
            )
            .hint(format!(
                "`slipway planned delete {}` abandons it; `--new-id` imports beside it",
                record.id
            )));
        }
        Ok(record)
    }

    fn keep_origin(&self, found: &Plan) -> Result<Origin> {
        let keep = |bytes: &Option<Vec<u8>>| bytes.as_ref().map(|b| self.blobs.put(b)).transpose();
        Ok(Origin {
            configuration: self.blobs.put(&found.configuration_bytes)?,
            form: form_name(found.form).to_owned(),
            runtime_state: keep(&found.runtime_state)?,
            guest_state: keep(&found.guest_state)?,
            source: found.package.root.clone(),
        })
    }

    /// Every planned machine, by name.
    ///
    /// # Errors
    /// The store fails.
    pub fn planned(&self) -> Result<Vec<PlannedView>> {
        let mut all: Vec<PlannedRecord> = record::list(&*self.store, PLANNED)?;
        all.retain(|record| !record.request.at_once);
        all.sort_by(|a, b| (&a.settings.name, a.id).cmp(&(&b.settings.name, b.id)));
        Ok(all.into_iter().map(PlannedView::from).collect())
    }

    pub(crate) fn planned_record(&self, id: Uuid) -> Result<(PlannedRecord, u64)> {
        record::get(&*self.store, &planned_key(id))?.ok_or_else(|| no_planned(id))
    }

    /// Planned machine `id`.
    ///
    /// # Errors
    /// There is none.
    pub fn planned_machine(&self, id: Uuid) -> Result<PlannedView> {
        let (record, _) = self.planned_record(id)?;
        if record.request.at_once { Err(no_planned(id)) } else { Ok(record.into()) }
    }

    /// Changes planned machine `id` and validates it again.
    ///
    /// # Errors
    /// There is none, it is being realized, or its package went away.
    pub fn edit_planned(&self, id: Uuid, edit: &PlannedEdit) -> Result<PlannedView> {
        self.edit_planned_until(id, edit, &Cancel::default())
    }

    fn edit_planned_until(&self, id: Uuid, edit: &PlannedEdit, cancel: &Cancel) -> Result<PlannedView> {
        let (old, revision) = self.planned_record(id)?;
        self.refuse_busy(id, "change")?;
        let mut request = old.request.clone();
        edit.apply(&mut request);
        let request = absolute(&request)?;
        let found = self.look_until(&request, cancel)?;
        let origin = self.keep_origin(&found)?;
        let mut new = planned(self.now(), &request, found, origin);
        // The id was given at import: editing something else does not mint another.
        if request.new_id && old.request.new_id {
            new.id = old.id;
        }
        new.created = old.created;
        let mut conditions = vec![Condition::Revision(planned_key(id), revision)];
        let mut operations = Vec::new();
        if new.id != id {
            if self.planned_record(new.id).is_ok() {
                return Err(Error::new(
                    Reason::AlreadyExists,
                    format!("a planned machine with the id {} is here already", new.id),
                ));
            }
            conditions.push(Condition::Absent(planned_key(new.id)));
            operations.push(Operation::Delete(planned_key(id)));
        }
        operations.push(record::put(planned_key(new.id), &new)?);
        if !record::commit(&*self.store, conditions, operations)? {
            return Err(Error::new(
                Reason::Busy,
                "the planned machine was changed by somebody else meanwhile",
            ));
        }
        Ok(new.into())
    }

    /// Validates planned machine `id` again, against the host and the package as they are now.
    ///
    /// # Errors
    /// As [`Self::edit_planned`].
    pub fn validate_planned(&self, id: Uuid) -> Result<PlannedView> {
        self.validate_planned_until(id, &Cancel::default())
    }

    /// The same, until `cancel` is told: the plan is then as it was.
    ///
    /// # Errors
    /// As [`Self::edit_planned`]; [`Reason::Timeout`] when it was told.
    pub fn validate_planned_until(&self, id: Uuid, cancel: &Cancel) -> Result<PlannedView> {
        self.edit_planned_until(id, &PlannedEdit::default(), cancel)
    }

    /// Makes planned machine `id` a machine: a job that copies or overlays its disks.
    ///
    /// # Errors
    /// A finding stands in the way, or it is being realized already.
    pub fn realize(&self, id: Uuid, owner: &str) -> Result<Uuid> {
        let view = self.validate_planned(id)?;
        let id = view.record.id;
        refuse_unready(&view.record.settings.name, &view.record.findings, |fix| match fix {
            // What was chosen when the package was read is chosen anew only by reading it again.
            "--copy" | "--lenient" => format!("import again with {fix}"),
            _ => format!("slipway planned set {id} {fix}"),
        })?;
        self.submit_realize(id, owner)
    }

    fn submit_realize(&self, id: Uuid, owner: &str) -> Result<Uuid> {
        crate::jobs::submit(
            self,
            job::Submission::<super::Realize>::new(super::realize::RealizeParams { planned: id })
                .subject(id.to_string())
                .owner(owner),
        )
    }

    /// Forgets planned machine `id`. The package is not touched.
    ///
    /// # Errors
    /// There is none, or it is being realized.
    pub fn abandon_planned(&self, id: Uuid) -> Result<()> {
        let (_, revision) = self.planned_record(id)?;
        self.refuse_busy(id, "abandon")?;
        let key = planned_key(id);
        let unchanged = vec![Condition::Revision(key.clone(), revision)];
        if !record::commit(&*self.store, unchanged, vec![Operation::Delete(key)])? {
            return Err(Error::new(
                Reason::Busy,
                "the planned machine was changed by somebody else meanwhile",
            ));
        }
        Ok(())
    }
}

fn no_planned(id: Uuid) -> Error {
    Error::new(Reason::NotFound, format!("no planned machine has the id {id}"))
}

/// Refuses what a finding keeps from becoming a machine; `option` says how an option that would resolve it is given.
fn refuse_unready(name: &str, findings: &[Finding], option: impl Fn(&str) -> String) -> Result<()> {
    let errors: Vec<_> = findings.iter().filter(|f| f.severity == Severity::Error).collect();
    let Some(first) = errors.first() else { return Ok(()) };
    let more = if errors.len() > 1 { format!(" (and {} more)", errors.len() - 1) } else { String::new() };
    let message = format!("`{name}` cannot become a machine: {}{more}", first.message);
    let hint = match first.fix.as_deref() {
        Some(fix) if fix.starts_with("--") => option(fix),
        Some(fix) => fix.to_owned(),
        None => format!("slipway explain {}", first.id),
    };
    Err(Error::new(Reason::NotCompatible, message).hint(hint))
}

pub(crate) fn planned_key(id: Uuid) -> String {
    format!("{PLANNED}{id}")
}

fn planned(created: jiff::Timestamp, request: &ImportRequest, found: Plan, origin: Origin) -> PlannedRecord {
    PlannedRecord {
        version: 1,
        id: found.id,
        source_id: found.configuration.id,
        settings: found.settings,
        disks: found.disks,
        new_switches: found.new_switches,
        state: found.state,
        origin,
        request: request.clone(),
        findings: found.findings,
        created,
        job: None,
        extra: serde_json::Map::new(),
    }
}

fn form_name(form: vmcx::Form) -> &'static str {
    match form {
        vmcx::Form::Container => "container",
        vmcx::Form::Xml => "xml",
    }
}

/// The request with every path absolute: it is read again later, perhaps by a process that runs elsewhere.
fn absolute(request: &ImportRequest) -> Result<ImportRequest> {
    let mut request = request.clone();
    let paths = std::iter::once(&mut request.path)
        .chain(&mut request.to)
        .chain(&mut request.root)
        .chain(&mut request.disk_dirs)
        .chain(request.disk_targets.values_mut());
    for path in paths.chain(request.parts.files()) {
        *path = std::path::absolute(&*path).map_err(|e| Error::io("find", path, e))?;
    }
    Ok(request)
}

/// Free bytes of the file system that `path` is or will be on.
fn free_bytes(path: &Path) -> Option<u64> {
    let existing = path.ancestors().find(|p| p.exists())?;
    let stat = rustix::fs::statvfs(existing).ok()?;
    Some(stat.f_bavail.saturating_mul(stat.f_frsize))
}
