//! Makes writes visible to searches: one refresh of a destination for all who wait, at most one a second. Effects:
//! sends refreshes.

use std::collections::HashMap;
use std::sync::{Arc, Mutex};
use std::time::Duration;

use bytes::Bytes;
use http::Method;
use tokio::sync::watch;
use tokio::time::{Instant, sleep_until};

use crate::elastic::ElasticHttp;
use crate::elastic::http::{Request, encode};

const AT_MOST_EVERY: Duration = Duration::from_secs(1);
const TIMEOUT: Duration = Duration::from_secs(30);

type Place = (Arc<str>, Arc<str>);

/// All refreshes.
#[derive(Default)]
pub struct Refresher {
    places: Mutex<HashMap<Place, State>>,
}

#[derive(Default)]
struct State {
    last: Option<Instant>,
    /// A refresh that has not begun yet: who joins it is covered by it.
    next: Option<watch::Receiver<bool>>,
}

impl Refresher {
    /// Returns when each of the destinations (cluster, index) was refreshed after this was called, or could not be.
    pub async fn refresh(&self, elastic: &Arc<ElasticHttp>, places: Vec<Place>) {
        let waits: Vec<_> = places.into_iter().filter_map(|place| self.join(elastic, place)).collect();
        for mut done in waits {
            // Closed without a word: the refresh was given up.
            done.wait_for(|done| *done).await.ok();
        }
    }

    fn join(&self, elastic: &Arc<ElasticHttp>, place: Place) -> Option<watch::Receiver<bool>> {
        let mut places = self.places.lock().ok()?;
        let state = places.entry(place.clone()).or_default();
        if let Some(next) = state.next.as_ref().filter(|next| next.has_changed().is_ok() && !*next.borrow()) {
            return Some(next.clone());
        }
        let now = Instant::now();
        let begins = state.last.map_or(now, |last| (last + AT_MOST_EVERY).max(now));
        state.last = Some(begins);
        let (sender, receiver) = watch::channel(false);
        // Whoever comes after it has begun starts the next one.
        state.next = (begins > now).then(|| receiver.clone());
        drop(places);
        let elastic = Arc::clone(elastic);
        tokio::spawn(async move {
            sleep_until(begins).await;
            let (cluster, index) = place;
            let request = Request {
                method: Method::POST,
                path: format!("/{}/_refresh?filter_path=_shards", encode(&index)),
                body: Bytes::new(),
                content_type: "application/json",
                timeout: TIMEOUT,
                max_answer: 64 << 10,
            };
            if let Err(error) = elastic.send(&cluster, request).await {
                tracing::warn!(%cluster, %index, %error, "a refresh failed");
            }
            sender.send(true).ok();
        });
        Some(receiver)
    }
}
