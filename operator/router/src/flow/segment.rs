//! Operations for one destination, and their lines of a bulk in one contiguous buffer. Pure.

use std::any::Any;
use std::sync::Arc;

use bytes::{Bytes, BytesMut};
use tokio::time::Instant;

use super::answer::Ticket;

/// What an operation costs beside its bytes: its record here, and what Elasticsearch answers.
pub const OVERHEAD: usize = 256;

/// Something that must live for as long as operations do: the table that they were resolved with.
pub type Hold = Arc<dyn Any + Send + Sync>;

/// One operation.
#[derive(Debug)]
pub struct Item {
    /// Absent: it has been answered already.
    pub ticket: Option<Ticket>,
    /// When its client wants an answer; absent: it comes from a queue, and can wait.
    pub deadline: Option<Instant>,
    /// Hash of the id, where one id must not be in two bulks at once.
    pub order: Option<u64>,
    /// Bytes of its lines.
    pub size: u32,
    /// Whether it may be sent again when nobody knows whether it was applied.
    pub repeatable: bool,
    /// How often it has been sent.
    pub tries: u8,
    /// Whether it was sent, and nobody knows whether it was applied.
    pub doubt: bool,
    /// Whether a migration moves its tenant: it is not sent while the router is fenced.
    pub moves: bool,
}

impl Item {
    /// What it holds of the budget.
    pub fn cost(&self) -> usize {
        self.bytes() + OVERHEAD
    }

    fn bytes(&self) -> usize {
        usize::try_from(self.size).unwrap_or(usize::MAX)
    }
}

/// Operations for one destination.
#[derive(Debug)]
pub struct Segment {
    body: Bytes,
    items: Vec<Item>,
    /// When the oldest of them came.
    pub since: Instant,
    /// Whether to send it without waiting for more.
    pub flush: bool,
    /// Whether to send it without others: something in it may be what Elasticsearch refuses.
    pub alone: bool,
    /// The lane that it waits in, so that tenants with much do not stand before their neighbours; absent: the common one.
    pub lane: Option<u64>,
    holds: Vec<Hold>,
}

impl Segment {
    /// An empty one with room for `bytes`.
    pub fn builder(bytes: usize, items: usize) -> SegmentBuilder {
        SegmentBuilder { body: BytesMut::with_capacity(bytes), items: Vec::with_capacity(items) }
    }

    /// Number of operations.
    pub fn len(&self) -> usize {
        self.items.len()
    }

    /// Whether there are none.
    pub fn is_empty(&self) -> bool {
        self.items.is_empty()
    }

    /// Bytes of all lines.
    pub fn bytes(&self) -> usize {
        self.body.len()
    }

    /// What it holds of the budget.
    pub fn cost(&self) -> usize {
        self.body.len() + self.items.len() * OVERHEAD
    }

    /// The lines.
    pub fn body(&self) -> Bytes {
        self.body.clone()
    }

    /// The operations.
    pub fn items(&self) -> &[Item] {
        &self.items
    }

    /// The operations, to mark them.
    pub fn items_mut(&mut self) -> &mut [Item] {
        &mut self.items
    }

    /// The operations, without their bytes.
    pub fn into_items(self) -> Vec<Item> {
        self.items
    }

    /// When the first of its clients wants an answer.
    pub fn deadline(&self) -> Option<Instant> {
        self.items.iter().filter(|item| item.ticket.is_some()).filter_map(|item| item.deadline).min()
    }

    /// Those that `keep`, in one segment with no more memory than they need, and the others.
    pub fn select(self, mut keep: impl FnMut(&Item) -> bool) -> (Option<Segment>, Option<Segment>) {
        let marks: Vec<bool> = self.items.iter().map(&mut keep).collect();
        if marks.iter().all(|kept| *kept) {
            return (Some(self).filter(|segment| !segment.is_empty()), None);
        }
        if marks.iter().all(|kept| !*kept) {
            return (None, Some(self));
        }
        let bytes: usize =
            self.items.iter().zip(&marks).filter(|(_, kept)| **kept).map(|(item, _)| item.bytes()).sum();
        let count = marks.iter().filter(|kept| **kept).count();
        let mut chosen = Segment::builder(bytes, count);
        let mut others = Segment::builder(self.body.len() - bytes.min(self.body.len()), marks.len() - count);
        let mut rest = self.body;
        for (item, kept) in self.items.into_iter().zip(marks) {
            let lines = rest.split_to(item.bytes().min(rest.len()));
            let to = if kept { &mut chosen } else { &mut others };
            to.body.extend_from_slice(&lines);
            to.items.push(item);
        }
        let build = |builder: SegmentBuilder| Segment {
            body: builder.body.freeze(),
            items: builder.items,
            since: self.since,
            flush: self.flush,
            alone: self.alone,
            lane: self.lane,
            holds: self.holds.clone(),
        };
        (Some(build(chosen)), Some(build(others)))
    }

    /// The first `count`, and the rest.
    pub fn split(self, count: usize) -> (Option<Segment>, Option<Segment>) {
        let mut position = 0;
        self.select(|_| {
            position += 1;
            position <= count
        })
    }

    /// Each operation by itself, in this order.
    pub fn singles(self) -> impl Iterator<Item = Segment> {
        let Segment { mut body, items, since, flush, alone, lane, holds } = self;
        items.into_iter().map(move |item| Segment {
            // A copy: a slice would keep the whole buffer.
            body: Bytes::copy_from_slice(&body.split_to(item.bytes().min(body.len()))),
            items: vec![item],
            since,
            flush,
            alone,
            lane,
            holds: holds.clone(),
        })
    }

    /// All of them, of one lane, in one, in this order; absent: there are none.
    pub fn merge(segments: Vec<Segment>) -> Option<Segment> {
        let bytes: usize = segments.iter().map(Segment::bytes).sum();
        let count: usize = segments.iter().map(Segment::len).sum();
        let mut segments = segments.into_iter();
        let mut whole = segments.next()?;
        if whole.bytes() == bytes && whole.len() == count {
            return Some(whole);
        }
        let mut body = BytesMut::with_capacity(bytes);
        body.extend_from_slice(&whole.body);
        whole.items.reserve_exact(count - whole.items.len());
        for other in segments {
            body.extend_from_slice(&other.body);
            whole.items.extend(other.items);
            whole.since = whole.since.min(other.since);
            whole.flush |= other.flush;
            for hold in other.holds {
                if !whole.holds.iter().any(|known| Arc::ptr_eq(known, &hold)) {
                    whole.holds.push(hold);
                }
            }
        }
        whole.body = body.freeze();
        Some(whole)
    }
}

/// A segment in the making.
#[derive(Debug)]
pub struct SegmentBuilder {
    body: BytesMut,
    items: Vec<Item>,
}

impl SegmentBuilder {
    /// Adds an operation: its action line with the line's end, and its document without one; no document: a delete.
    /// `item.size` is set here.
    pub fn push(&mut self, action: &[u8], document: Option<&[u8]>, mut item: Item) {
        let before = self.body.len();
        self.body.extend_from_slice(action);
        if let Some(document) = document {
            self.body.extend_from_slice(document);
            self.body.extend_from_slice(b"\n");
        }
        item.size = u32::try_from(self.body.len() - before).unwrap_or(u32::MAX);
        self.items.push(item);
    }

    /// Number of operations.
    pub fn len(&self) -> usize {
        self.items.len()
    }

    /// Whether there are none.
    pub fn is_empty(&self) -> bool {
        self.items.is_empty()
    }

    /// Bytes of all lines.
    pub fn bytes(&self) -> usize {
        self.body.len()
    }

    /// The segment. `flush`: it does not wait for more; `hold` lives for as long as any operation of it.
    pub fn finish(self, since: Instant, flush: bool, hold: Hold) -> Segment {
        let (body, items) = (self.body.freeze(), self.items);
        Segment { body, items, since, flush, alone: false, lane: None, holds: vec![hold] }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn segment(lines: &[&str]) -> Segment {
        let mut builder = Segment::builder(0, 0);
        for line in lines {
            let item = Item {
                ticket: None,
                deadline: None,
                order: None,
                size: 0,
                repeatable: true,
                tries: 0,
                doubt: false,
                moves: false,
            };
            builder.push(format!("{line}\n").as_bytes(), line.starts_with('i').then_some(b"{}"), item);
        }
        builder.finish(Instant::now(), true, Arc::new(()))
    }

    #[test]
    fn every_line_stays_with_its_operation() {
        let whole = segment(&["i1", "d2", "i3", "d4"]);
        assert_eq!((whole.len(), whole.cost()), (4, 18 + 4 * OVERHEAD));
        let mut flags = [true, false, false, true].into_iter();
        let (kept, others) = whole.select(|_| flags.next().unwrap());
        let (kept, others) = (kept.unwrap(), others.unwrap());
        assert_eq!((&kept.body()[..], &others.body()[..]), (&b"i1\n{}\nd4\n"[..], &b"d2\ni3\n{}\n"[..]));
        let merged = Segment::merge(vec![others, kept]).unwrap();
        assert_eq!(&merged.body()[..], b"d2\ni3\n{}\ni1\n{}\nd4\n");
        assert_eq!(merged.items().iter().map(|item| item.size).sum::<u32>(), 18);
        let (first, rest) = merged.split(1);
        assert_eq!((first.unwrap().len(), rest.unwrap().len()), (1, 3));
        assert!(Segment::merge(Vec::new()).is_none());
        let singles: Vec<Bytes> = segment(&["i1", "d2"]).singles().map(|single| single.body()).collect();
        assert_eq!(singles, [&b"i1\n{}\n"[..], b"d2\n"]);
        let (all, none) = segment(&["i1"]).split(5);
        assert!(all.is_some() && none.is_none());
    }
}
