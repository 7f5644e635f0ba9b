//! From the operations of a request to what is sent where: tenants, stored ids, versions, destinations. Pure.

use std::borrow::Cow;
use std::collections::BTreeMap;
use std::sync::Arc;
use std::time::SystemTime;

use http::StatusCode;
use searchcell_core::routing::Destination;
use searchcell_crds::IdScope;
use serde_json::value::RawValue;
use smallvec::{SmallVec, smallvec};
use tokio::time::Instant;
use xxhash_rust::xxh3::xxh3_64;

use super::bulk::{self, Action, BulkError, Operations, Verb, Word};
use super::error::Failure;
use super::ingress::{Ingress, Wait};
use super::rules::{Versions, refuse, versions};
use crate::flow::answer::Ticket;
use crate::flow::owner::Parcel;
use crate::flow::segment::{Item, OVERHEAD, Segment, SegmentBuilder};
use crate::ids::{self, Minter};
use crate::routes::{Route, Routes};

/// What the request says for all of its operations.
pub struct Request<'a> {
    /// The tables in force.
    pub routes: &'a Routes,
    /// `_index` of operations that name none: of the path.
    pub index: Option<&'a str>,
    /// `routing` of operations that name none.
    pub routing: Option<&'a str>,
    /// Whether the user may write to a collection.
    pub may_write: &'a dyn Fn(&str) -> bool,
    /// For documents without an id.
    pub minter: &'a Minter,
    /// Now.
    pub now: SystemTime,
}

/// One operation as its client knows it.
#[derive(Debug, PartialEq)]
pub struct Asked {
    /// What is to be done.
    pub verb: Verb,
    /// Collection, as the client named it.
    pub index: Arc<str>,
    /// Id, as the client gave it or was given; empty: there is none, because the operation is refused.
    pub id: Box<str>,
    /// Copies to be written, by position in [`Plan::copies`]; or why there are none.
    pub copies: Result<std::ops::Range<usize>, Failure>,
}

/// One copy of one document.
#[derive(Debug)]
struct Copy<'a> {
    route: usize,
    position: u32,
    tenant: usize,
    action: std::ops::Range<usize>,
    document: Option<&'a [u8]>,
    order: Option<u64>,
    repeatable: bool,
    moves: bool,
    lane: Option<u64>,
}

/// An operation that cannot go now.
pub struct Waiting<'a> {
    /// Its position in [`Plan::asked`].
    pub position: usize,
    /// The operation; its id is in [`Plan::asked`].
    pub action: Action<'a>,
    /// Why.
    pub wait: Wait,
}

/// What is to be sent for a request.
pub struct Plan<'a> {
    /// Every operation, in the order asked.
    pub asked: Vec<Asked>,
    /// Those of them that cannot go now, in the same order; until they can, they are refused with 429.
    pub waiting: Vec<Waiting<'a>>,
    routes: Vec<Arc<Route>>,
    copies: Vec<Copy<'a>>,
    actions: Vec<u8>,
    tenants: Vec<Cow<'a, str>>,
    names: BTreeMap<String, Arc<str>>,
    /// Hashes of what the operation at hand is stored as.
    ids: Vec<u64>,
    /// What the copy at hand is stored as.
    stored: String,
}

/// Whose a copy is, and where it goes.
#[derive(Clone, Debug)]
pub struct Target {
    /// Tenant.
    pub tenant: String,
    /// Name of the cluster.
    pub cluster: Arc<str>,
    /// Name of the index.
    pub index: Arc<str>,
    /// Whether it may be sent again when nobody knows whether it was applied.
    pub repeatable: bool,
}

impl<'a> Plan<'a> {
    /// The plan of a request's operations.
    pub fn new(actions: Vec<Action<'a>>, request: &Request<'_>, ingress: &mut Ingress<'_>) -> Self {
        let mut plan = Plan::for_about(actions.len());
        for action in actions {
            plan.add(action, request, ingress);
        }
        plan
    }

    /// The same for operations that are read one by one, because many in memory at once take longer.
    pub fn of(
        operations: Operations<'a>,
        request: &Request<'_>,
        ingress: &mut Ingress<'_>,
    ) -> Result<Self, BulkError> {
        let mut plan = Plan::for_about(operations.guess());
        for action in operations {
            plan.add(action?, request, ingress);
        }
        Ok(plan)
    }

    fn for_about(operations: usize) -> Self {
        Plan {
            asked: Vec::with_capacity(operations),
            waiting: Vec::new(),
            routes: Vec::new(),
            copies: Vec::with_capacity(operations),
            actions: Vec::with_capacity(operations * 128),
            tenants: Vec::with_capacity(operations),
            names: BTreeMap::new(),
            ids: Vec::new(),
            stored: String::new(),
        }
    }

    fn add(&mut self, action: Action<'a>, request: &Request<'_>, ingress: &mut Ingress<'_>) {
        let first = self.copies.len();
        let index = match (&action.meta.index, request.index) {
            (Some(Word(index)), _) => index.as_ref(),
            (None, Some(index)) => index,
            (None, None) => "",
        };
        let index = self.name(index);
        let mut id = action.meta.id.as_ref().map(|Word(id)| Box::from(id.as_ref())).unwrap_or_default();
        let verb = action.verb;
        let blocked = self.resolve(&action, &index, &mut id, request, ingress);
        let position = self.asked.len();
        let wait = blocked.and_then(|blocked| {
            ingress.admit(position, &self.ids, blocked).map_err(|after| Failure::too_fast(&index, after))
        });
        let copies = match wait {
            Ok(None) => Ok(first..self.copies.len()),
            Ok(Some(wait)) => {
                self.waiting.push(Waiting { position, action, wait });
                let reason = format!("not applied: {wait}, and the timeout of the request is over");
                Err(Failure::overloaded(reason))
            }
            Err(failure) => Err(failure),
        };
        if copies.is_err() {
            self.copies.truncate(first);
        }
        self.asked.push(Asked { verb, index, id, copies });
    }

    /// Copies to be sent.
    pub fn copies(&self) -> usize {
        self.copies.len()
    }

    /// What they hold of the budget.
    pub fn cost(&self) -> usize {
        let cost = |copy: &Copy<'_>| {
            copy.action.len() + copy.document.map_or(0, |document| document.len() + 1) + OVERHEAD
        };
        self.copies.iter().map(cost).sum()
    }

    /// A copy, by its position.
    pub fn target(&self, copy: usize) -> Option<Target> {
        let copy = self.copies.get(copy)?;
        let place = self.routes.get(copy.route)?.place(copy.position)?;
        Some(Target {
            tenant: self.tenants.get(copy.tenant)?.to_string(),
            cluster: Arc::clone(&place.cluster),
            index: Arc::clone(&place.index),
            repeatable: copy.repeatable,
        })
    }

    /// Segments for every destination, and whose they are; none is larger than `bulk_bytes` or has more than
    /// `bulk_items` unless one operation is. `ticket`: of each copy; a copy without one is not sent. Without a
    /// deadline they are of a queue, and wait for others.
    pub fn parcels(
        &self,
        mut ticket: impl FnMut(u32) -> Option<Ticket>,
        deadline: Option<Instant>,
        now: Instant,
        (bulk_bytes, bulk_items): (usize, usize),
    ) -> Vec<Parcel> {
        // What is in each destination is known before anything is copied, so that buffers are of their size.
        type Group<'p, 'a> = Vec<(Ticket, &'p Copy<'a>)>;
        let mut groups: BTreeMap<(usize, u32, Option<u64>), Group<'_, '_>> = BTreeMap::new();
        for (slot, copy) in (0_u32..).zip(&self.copies) {
            if let Some(ticket) = ticket(slot) {
                groups.entry((copy.route, copy.position, copy.lane)).or_default().push((ticket, copy));
            }
        }
        let size =
            |copy: &Copy<'_>| copy.action.len() + copy.document.map_or(0, |document| document.len() + 1);
        let mut parcels = Vec::with_capacity(groups.len());
        for ((route, position, lane), copies) in groups {
            let Some(route) = self.routes.get(route) else { continue };
            let Some(place) = route.place(position) else { continue };
            let mut left: usize = copies.iter().map(|(_, copy)| size(copy)).sum();
            let mut finish = |builder: SegmentBuilder| {
                let hold = Arc::clone(route) as crate::flow::segment::Hold;
                let (cluster, index) = (Arc::clone(&place.cluster), Arc::clone(&place.index));
                let mut segment = builder.finish(now, deadline.is_some(), hold);
                segment.lane = lane;
                parcels.push(Parcel { cluster, index, segment });
            };
            let room = |left: usize| left.min(bulk_bytes);
            let mut builder = Segment::builder(room(left), copies.len().min(bulk_items));
            for (ticket, copy) in copies {
                let full = builder.len() >= bulk_items || builder.bytes() + size(copy) > bulk_bytes;
                if full && !builder.is_empty() {
                    let next = Segment::builder(room(left).max(size(copy)), bulk_items.min(64));
                    finish(std::mem::replace(&mut builder, next));
                }
                left -= size(copy).min(left);
                let item = Item {
                    ticket: Some(ticket),
                    deadline,
                    order: copy.order,
                    size: 0,
                    repeatable: copy.repeatable,
                    tries: 0,
                    doubt: false,
                    moves: copy.moves,
                };
                let action = self.actions.get(copy.action.clone()).unwrap_or_default();
                builder.push(action, copy.document, item);
            }
            if !builder.is_empty() {
                finish(builder);
            }
        }
        parcels
    }

    /// Where each copy goes, by cluster and index, of the copies in `which`.
    pub fn places(&self, which: impl Iterator<Item = usize>) -> Vec<(Arc<str>, Arc<str>)> {
        let mut places: Vec<(Arc<str>, Arc<str>)> = which
            .filter_map(|copy| {
                let copy = self.copies.get(copy)?;
                let place = self.routes.get(copy.route)?.place(copy.position)?;
                Some((Arc::clone(&place.cluster), Arc::clone(&place.index)))
            })
            .collect();
        places.sort_unstable();
        places.dedup();
        places
    }

    fn name(&mut self, name: &str) -> Arc<str> {
        if let Some(known) = self.names.get(name) {
            return Arc::clone(known);
        }
        let new: Arc<str> = Arc::from(name);
        self.names.insert(name.to_owned(), Arc::clone(&new));
        new
    }

    /// Adds the copies of an operation; or says what stands in their way, for now.
    fn resolve(
        &mut self,
        action: &Action<'a>,
        index: &str,
        id: &mut Box<str>,
        request: &Request<'_>,
        ingress: &mut Ingress<'_>,
    ) -> Result<Option<Wait>, Failure> {
        self.ids.clear();
        ingress.next();
        if index.is_empty() {
            return Err(Failure::illegal("an index is required: in the path, or as [_index] of the action"));
        }
        let route = request.routes.get(index).ok_or_else(|| Failure::no_collection(index))?;
        if !(request.may_write)(index) {
            return Err(Failure::forbidden("indices:data/write/bulk", index));
        }
        refuse(action)?;
        let rules = &route.table.tenant;
        let versions = versions(&action.meta, action.verb, route)?;
        let tenants = tenants(action, route, request)?;
        if id.is_empty() {
            if action.meta.id.is_some() {
                return Err(Failure::illegal("if _id is specified it must not be empty"));
            }
            if action.verb == Verb::Delete {
                return Err(Failure::illegal(
                    "an id must be provided if version type or value are set, or to delete",
                ));
            }
            *id = request.minter.mint(request.now).into();
        }
        let known = self.routes.iter().position(|known| Arc::ptr_eq(known, route));
        let number = known.unwrap_or(self.routes.len());
        if known.is_none() {
            self.routes.push(Arc::clone(route));
        }
        let mut blocked = None;
        for tenant in tenants {
            self.stored.clear();
            if rules.id_scope == IdScope::Tenant {
                ids::write_prefix(&mut self.stored, &tenant);
            }
            self.stored.push_str(id);
            if self.stored.len() > ids::MAX_ID_BYTES {
                return Err(Failure::illegal(format!(
                    "id is too long: with its tenant it has {} bytes, and {} are the most",
                    self.stored.len(),
                    ids::MAX_ID_BYTES
                )));
            }
            let says = route.table.overrides.get(tenant.as_ref());
            let to: &Destination = match says {
                Some(says) => &says.to,
                None => route.table.in_pool(&tenant).ok_or_else(|| Failure::no_place(index, &tenant))?,
            };
            let lane = ingress.arrives(route, &tenant, action.document.map_or(0, <[u8]>::len), says);
            let order = xxh3_64(self.stored.as_bytes());
            self.ids.push(order ^ route.seed);
            // Of this operation alone: a request is not to wait for the index of one of its tenants, which may be lost
            // for hours. Without a copy to be written, nobody may be told that it is.
            if to.is_nowhere() {
                blocked = Some(Wait::Nowhere);
            }
            let moves = to.is_moving();
            if moves && ingress.fenced {
                blocked = blocked.or(Some(Wait::Fenced));
            }
            for position in to.writes() {
                let Some(to) = route.place(*position).filter(|to| !to.paused) else {
                    blocked = blocked.or(Some(Wait::Paused));
                    continue;
                };
                let start = self.actions.len();
                write_action(
                    &mut self.actions,
                    action.verb,
                    &self.stored,
                    to.routed.then_some(tenant.as_ref()),
                    &versions,
                );
                self.copies.push(Copy {
                    route: number,
                    position: *position,
                    tenant: self.tenants.len(),
                    action: start..self.actions.len(),
                    document: action.document,
                    order: versions.external.is_none().then_some(order),
                    repeatable: versions.external.is_some(),
                    moves,
                    lane,
                });
            }
            self.tenants.push(tenant);
        }
        Ok(blocked)
    }
}

/// Nearly every operation has one.
type Tenants<'a> = SmallVec<[Cow<'a, str>; 1]>;

fn tenants<'a>(action: &Action<'a>, route: &Route, request: &Request<'_>) -> Result<Tenants<'a>, Failure> {
    let rules = &route.table.tenant;
    let own = || request.routing.map(|routing| Cow::Owned(routing.to_owned()));
    let routing = action.meta.routing.as_ref().map(|Word(routing)| routing.clone()).or_else(own);
    let tenants: Tenants<'a> = match (routing, action.document) {
        (Some(routing), _) if rules.fan_out => {
            routing.split(',').map(|tenant| Cow::Owned(tenant.to_owned())).collect()
        }
        (Some(routing), _) => smallvec![routing],
        (None, Some(document)) => in_document(document, &rules.field, rules.fan_out)?,
        (None, None) => {
            let reason = "routing is required to delete: it is the tenant".to_owned();
            return Err(Failure::new(StatusCode::BAD_REQUEST, "routing_missing_exception", reason));
        }
    };
    for tenant in &tenants {
        check_tenant(tenant)?;
    }
    if tenants.len() < 2 {
        return Ok(tenants);
    }
    let mut unique = Tenants::with_capacity(tenants.len());
    for tenant in tenants {
        if !unique.contains(&tenant) {
            unique.push(tenant);
        }
    }
    Ok(unique)
}

/// Whether something can be a tenant.
pub fn check_tenant(tenant: &str) -> Result<(), Failure> {
    if (1..=ids::MAX_TENANT_BYTES).contains(&tenant.len()) {
        return Ok(());
    }
    Err(Failure::illegal(format!(
        "a tenant has 1 to {} bytes, and this one has {}",
        ids::MAX_TENANT_BYTES,
        tenant.len()
    )))
}

fn in_document<'a>(document: &'a [u8], name: &str, fan_out: bool) -> Result<Tenants<'a>, Failure> {
    let parsing =
        |reason: String| Failure::new(StatusCode::BAD_REQUEST, "document_parsing_exception", reason);
    let value = bulk::field(document, name).map_err(|error| parsing(error.to_string()))?;
    let missing = || {
        let reason =
            format!("routing is required: neither it nor the field [{name}] says whose document this is");
        Failure::new(StatusCode::BAD_REQUEST, "routing_missing_exception", reason)
    };
    let value = value.ok_or_else(missing)?;
    let wrong = || parsing(format!("the field [{name}] must be a string or an integer"));
    let one = |value: &'a RawValue| {
        let text = value.get();
        let digits = text.strip_prefix('-').unwrap_or(text);
        if text.starts_with('"') {
            serde_json::from_str::<Word<'a>>(text).map(|Word(tenant)| tenant).map_err(|_| wrong())
        } else if !digits.is_empty() && digits.bytes().all(|byte| byte.is_ascii_digit()) && text != "-0" {
            Ok(Cow::Borrowed(text))
        } else {
            Err(wrong())
        }
    };
    if !fan_out {
        return one(value).map(|tenant| smallvec![tenant]);
    }
    let list: Vec<&'a RawValue> = match serde_json::from_str(value.get()) {
        Ok(list) => list,
        Err(_) => vec![value],
    };
    if list.is_empty() { Err(missing()) } else { list.into_iter().map(one).collect() }
}

fn write_action(out: &mut Vec<u8>, verb: Verb, id: &str, routing: Option<&str>, versions: &Versions) {
    out.extend_from_slice(b"{\"");
    out.extend_from_slice(verb.name().as_bytes());
    out.extend_from_slice(b"\":{\"_id\":");
    write_text(out, id);
    if let Some(routing) = routing {
        out.extend_from_slice(b",\"routing\":");
        write_text(out, routing);
    }
    if let Some(version) = versions.external {
        out.extend_from_slice(b",\"version\":");
        out.extend_from_slice(itoa::Buffer::new().format(version).as_bytes());
        out.extend_from_slice(b",\"version_type\":\"external\"");
    }
    if let Some((seq_no, term)) = versions.condition {
        out.extend_from_slice(format!(",\"if_seq_no\":{seq_no},\"if_primary_term\":{term}").as_bytes());
    }
    out.extend_from_slice(b"}}\n");
}

/// Text as JSON.
pub fn write_text(out: &mut Vec<u8>, text: &str) {
    // To the end in any case: that is done for many bytes at once.
    let special = |byte: u8| (byte < 0x20) | (byte == b'"') | (byte == b'\\');
    if !text.bytes().fold(false, |found, byte| found | special(byte)) {
        out.push(b'"');
        out.extend_from_slice(text.as_bytes());
        out.push(b'"');
    } else {
        // Writing to memory does not fail.
        serde_json::to_writer(out, text).ok();
    }
}

#[cfg(test)]
#[path = "plan_tests.rs"]
mod tests;
