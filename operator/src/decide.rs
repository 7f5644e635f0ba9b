//! The seam between the loop and what it runs: every pure decision, in one trait, so that a test can wrap it.
//! No effects.

use std::time::Duration;

use jiff::Timestamp;
use searchcell_core::domain::{ValidCell, ValidPlacement};
use searchcell_core::placement::{self, PlacementSnapshot};
use searchcell_core::routing::{self, TableSnapshot};
use searchcell_core::snapshot::CellSnapshot;
use searchcell_core::step::{Outcome, Plan};
use searchcell_core::validate::{self, Problem};
use searchcell_core::{plan, status};
use searchcell_crds::{IndexPlacement, IndexPlacementStatus, SearchCell, SearchCellStatus};

/// What the core decides. The defaults *are* the core; tests override single decisions to watch or disturb them.
pub trait Decide: Send + Sync {
    /// Raw spec to restricted types, or all problems at once.
    fn validate_cell(&self, cell: &SearchCell) -> Result<ValidCell, Vec<Problem>> {
        validate::validate_cell(cell)
    }

    /// What to do about a cell.
    fn plan_cell(&self, cell: &ValidCell, snapshot: &CellSnapshot, now: Timestamp) -> Plan {
        plan::plan_cell(cell, snapshot, now)
    }

    /// What to do about a cell whose spec is invalid, to be looked at again after `every` at the latest.
    fn plan_invalid_cell(&self, snapshot: &CellSnapshot, now: Timestamp, every: Duration) -> Plan {
        plan::plan_invalid_cell(snapshot, now, every)
    }

    /// What to do about a cell that is being deleted, valid or not.
    fn plan_cell_deletion(&self, snapshot: &CellSnapshot, now: Timestamp) -> Plan {
        plan::plan_deletion(snapshot, now)
    }

    /// What to report of a cell.
    fn cell_status(
        &self,
        snapshot: &CellSnapshot,
        valid: Result<&ValidCell, &[Problem]>,
        plan: &Plan,
        outcomes: &[Outcome],
        now: Timestamp,
    ) -> SearchCellStatus {
        status::cell_status(snapshot, valid, plan, outcomes, now)
    }

    /// Raw spec to restricted types, or all problems at once.
    fn validate_placement(
        &self,
        placement: &IndexPlacement,
        cell: Option<&SearchCell>,
        siblings: &[IndexPlacement],
    ) -> Result<ValidPlacement, Vec<Problem>> {
        validate::validate_placement(placement, cell, siblings)
    }

    /// What to do about a placement.
    fn plan_placement(&self, valid: &ValidPlacement, snapshot: &PlacementSnapshot, now: Timestamp) -> Plan {
        placement::plan_placement(valid, snapshot, now)
    }

    /// What to do about the routing table of a collection.
    fn plan_table(&self, snapshot: &TableSnapshot, now: Timestamp) -> Plan {
        routing::plan_table(snapshot, now)
    }

    /// What to do about a placement that is being deleted, valid or not.
    fn plan_placement_deletion(&self, snapshot: &PlacementSnapshot, now: Timestamp) -> Plan {
        placement::plan_placement_deletion(snapshot, now)
    }

    /// What to report of a placement.
    fn placement_status(
        &self,
        snapshot: &PlacementSnapshot,
        valid: Result<&ValidPlacement, &[Problem]>,
        plan: &Plan,
        outcomes: &[Outcome],
        now: Timestamp,
    ) -> IndexPlacementStatus {
        placement::placement_status(snapshot, valid, plan, outcomes, now)
    }
}

/// The core as it is.
#[derive(Clone, Copy, Debug, Default)]
pub struct Core;

impl Decide for Core {}
