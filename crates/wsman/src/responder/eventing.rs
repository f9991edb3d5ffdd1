//! Subscribe, Renew, GetStatus and Unsubscribe (WS-Eventing of 2004/08, DSP0226, 10), and pulling events.
//!
//! Events come from the operations; here they wait for pulls. A pull that finds none holds no thread: it tells the server
//! what to wait for and is tried again when that happens, until the client's own time is over and the answer is
//! `w:TimedOut`, after which clients pull again. A subscription ends when its time does, whether anybody pulls or not.

use std::collections::HashMap;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::{Duration, Instant};

use cim::query::{Query, Select};
use cim::xml::{Xml, text};
use cim::{Instance, Name};
use roxmltree::Node;
use tokio::sync::Notify;
use uuid::Uuid;

use super::enumerate::Batch;
use super::{Done, Reply, Turn, unknown_uri};
use crate::contexts::{parsed, spelled};
use crate::encode::Encoder;
use crate::fault::{Code, Fault};
use crate::limits::{DEFAULT_SUBSCRIPTION, MAX_FILTER, MAX_SUBSCRIPTION, MAX_SUBSCRIPTIONS_PER_USER};
use crate::operations::Events;
use crate::resource::{Form, Resource};
use crate::server::Later;
use crate::time;
use crate::uri;
use crate::xml::{child, is};

/// Delivery by pulls, the only one that there is.
const PULL: &str = "http://schemas.dmtf.org/wbem/wsman/1/wsman/Pull";

/// Everybody's subscriptions.
#[derive(Default)]
pub(super) struct Subscriptions {
    table: Mutex<HashMap<Uuid, Arc<Subscription>>>,
}

/// One of them. Its id is what clients renew and end it by, and what they pull by.
pub(super) struct Subscription {
    id: Uuid,
    user: String,
    namespace: String,
    form: Form,
    /// The resource URI that it was asked for by.
    resource: String,
    /// Only these properties.
    selected: Option<Vec<Name>>,
    until: Mutex<Instant>,
    waiting: Mutex<Waiting>,
    ready: Arc<Notify>,
}

/// What a pull takes from.
struct Waiting {
    events: Box<dyn Events>,
    /// One that did not fit into a reply any more, and how many were dropped before it.
    ahead: Option<(u64, Arc<Instance>)>,
}

impl Waiting {
    fn next(&mut self) -> Option<(u64, Arc<Instance>)> {
        self.ahead.take().or_else(|| {
            let fetched = self.events.fetch(1);
            fetched.events.into_iter().next().map(|event| (fetched.dropped, event))
        })
    }
}

impl Subscription {
    fn until(&self) -> MutexGuard<'_, Instant> {
        self.until.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Subscriptions {
    fn table(&self) -> MutexGuard<'_, HashMap<Uuid, Arc<Subscription>>> {
        self.table.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Forgets those whose time is over, and gives what is left.
    fn current(&self, now: Instant) -> MutexGuard<'_, HashMap<Uuid, Arc<Subscription>>> {
        let mut table = self.table();
        let over: Vec<_> = table.extract_if(|_, one| *one.until() <= now).collect();
        if !over.is_empty() {
            // Ending one asks whoever makes its events, which may be handing some out.
            drop(table);
            drop(over);
            table = self.table();
        }
        table
    }

    fn keep(&self, subscription: Subscription, now: Instant) -> Result<Arc<Subscription>, Fault> {
        let mut table = self.current(now);
        let own = table.values().filter(|one| one.user == subscription.user).count();
        if own >= MAX_SUBSCRIPTIONS_PER_USER {
            let reason = format!("this user has {MAX_SUBSCRIPTIONS_PER_USER} subscriptions already");
            return Err(Fault::new(Code::QuotaLimit, reason));
        }
        let kept = Arc::new(subscription);
        table.insert(kept.id, Arc::clone(&kept));
        Ok(kept)
    }

    /// The subscription of that id, if it is the user's.
    pub(super) fn get(&self, user: &str, id: &str, now: Instant) -> Option<Arc<Subscription>> {
        let id = parsed(id)?;
        self.current(now).get(&id).filter(|one| one.user == user).cloned()
    }

    pub(super) fn end(&self, subscription: &Subscription) {
        let ended = self.table().remove(&subscription.id);
        subscription.ready.notify_waiters();
        drop(ended);
    }
}

/// What a Subscribe says.
struct Asked<'d> {
    lasts: Duration,
    filter: Option<Node<'d, 'd>>,
}

impl<'d> Asked<'d> {
    fn read(body: Node<'d, 'd>) -> Result<Self, Fault> {
        let delivery = child(body, uri::EVENTING, "Delivery");
        let mode = delivery.and_then(|node| node.attribute("Mode")).unwrap_or_default();
        if mode != PULL {
            let reason = format!("events are delivered by pulls ({PULL}), not by `{mode}`");
            return Err(Fault::new(Code::DeliveryModeUnavailable, reason));
        }
        let filter = body.children().find(|node| node.is_element() && node.tag_name().name() == "Filter");
        Ok(Self { lasts: lasts(body)?, filter })
    }
}

/// How long a subscription is to last: a duration, or until a point in time.
fn lasts(body: Node<'_, '_>) -> Result<Duration, Fault> {
    let Some(node) = child(body, uri::EVENTING, "Expires") else { return Ok(DEFAULT_SUBSCRIPTION) };
    let asked = text(node);
    let lasts = time::duration(&asked).or_else(|| time::until(&asked));
    let lasts = lasts.filter(|lasts| !lasts.is_zero()).ok_or_else(|| {
        Fault::new(Code::InvalidExpiration, format!("`{}` is no time to come", asked.trim()))
    })?;
    Ok(lasts.min(MAX_SUBSCRIPTION))
}

impl Turn<'_> {
    pub(super) fn subscribe(&self, done: &mut Done) -> Result<Reply, Fault> {
        let (form, namespace, class) = match self.resource()? {
            Resource::Class { form, namespace, class } => (*form, namespace, Some(class.as_str())),
            Resource::All { form, namespace } => (*form, namespace, None),
            _ => return Err(unknown_uri()),
        };
        let asked = Asked::read(self.eventing("Subscribe")?)?;
        let schema = self.schema(namespace)?;
        let select = self.wanted(class, asked.filter, done)?;
        let selected = select.columns.clone();
        select.check(schema).map_err(|e| {
            Fault::new(Code::EventFilterUnavailable, format!("the query cannot be answered: {e}"))
        })?;
        let mut events = self.responder.operations.subscribe(self.call, namespace, select)?;
        let ready = Arc::new(Notify::new());
        let wake = Arc::clone(&ready);
        events.wake(Box::new(move || wake.notify_one()));
        let now = Instant::now();
        let subscription = self.responder.subscriptions.keep(
            Subscription {
                id: Uuid::new_v4(),
                user: self.call.principal.user.clone(),
                namespace: namespace.clone(),
                form,
                resource: self.request.resource.clone().unwrap_or_default(),
                selected,
                until: Mutex::new(now + asked.lasts),
                waiting: Mutex::new(Waiting { events, ahead: None }),
                ready,
            },
            now,
        )?;
        let mut xml = Xml::new();
        xml.open("e:SubscribeResponse", &[]);
        xml.open("e:SubscriptionManager", &[]);
        xml.element("a:Address", self.request.to.as_deref().unwrap_or(uri::ANONYMOUS));
        xml.open("a:ReferenceParameters", &[]);
        xml.element("w:ResourceURI", &subscription.resource);
        xml.element("e:Identifier", &spelled(subscription.id));
        xml.close("a:ReferenceParameters");
        xml.close("e:SubscriptionManager");
        xml.element("e:Expires", &time::seconds(asked.lasts));
        xml.element("n:EnumerationContext", &spelled(subscription.id));
        xml.close("e:SubscribeResponse");
        Ok(Reply {
            action: format!("{}/SubscribeResponse", uri::EVENTING),
            body: xml.into_string(),
            ..Reply::default()
        })
    }

    /// The query of a Subscribe; without one, all events of the class that the resource URI names.
    fn wanted(
        &self,
        class: Option<&str>,
        filter: Option<Node<'_, '_>>,
        done: &mut Done,
    ) -> Result<Select, Fault> {
        let unavailable = |why: String| Fault::new(Code::EventFilterUnavailable, why);
        let Some(filter) = filter else {
            return class.map(Select::all).ok_or_else(|| {
                unavailable("name a class of events in the resource URI, or send a query".to_owned())
            });
        };
        let dialect = filter.attribute("Dialect").unwrap_or(uri::XPATH);
        if !dialect.eq_ignore_ascii_case(uri::WQL) && !dialect.eq_ignore_ascii_case(uri::CQL) {
            return Err(unavailable(format!("events are chosen by a query in WQL or CQL, not by {dialect}")));
        }
        let text = text(filter);
        if text.len() > MAX_FILTER {
            return Err(Fault::limit("bytes in a filter", MAX_FILTER));
        }
        done.target = text.trim().chars().take(500).collect();
        match text.parse::<Query>() {
            Ok(Query::Select(select)) => Ok(select),
            Ok(Query::Related(_)) => Err(unavailable("events are chosen by SELECT".to_owned())),
            Err(e) => Err(unavailable(format!("the query is not understood: {e}"))),
        }
    }

    pub(super) fn renew(&self) -> Result<Reply, Fault> {
        let lasts = lasts(self.eventing("Renew")?)?;
        let subscription = self.subscription(Code::UnableToRenew)?;
        *subscription.until() = Instant::now() + lasts;
        Ok(expires("Renew", lasts))
    }

    pub(super) fn subscription_status(&self) -> Result<Reply, Fault> {
        self.eventing("GetStatus")?;
        let until = *self.subscription(Code::InvalidMessage)?.until();
        Ok(expires("GetStatus", until.saturating_duration_since(Instant::now())))
    }

    pub(super) fn unsubscribe(&self) -> Result<Reply, Fault> {
        self.eventing("Unsubscribe")?;
        let subscription = self.subscription(Code::InvalidMessage)?;
        self.responder.subscriptions.end(&subscription);
        Ok(Reply { action: format!("{}/UnsubscribeResponse", uri::EVENTING), ..Reply::default() })
    }

    /// The subscription that a header names.
    fn subscription(&self, code: Code) -> Result<Arc<Subscription>, Fault> {
        let id = self.request.subscription.as_deref().unwrap_or_default();
        let found = self.responder.subscriptions.get(&self.call.principal.user, id, Instant::now());
        found.ok_or_else(|| Fault::new(code, "there is no such subscription, or its time is over"))
    }

    /// Events that wait, up to what the batch holds. Where there are none, what to wait for.
    pub(super) fn pull_events(&self, subscription: &Subscription, batch: &Batch) -> Result<Reply, Fault> {
        let schema = self.schema(&subscription.namespace)?;
        let encoder = Encoder { schema, namespace: &subscription.namespace, form: subscription.form };
        let mut items = Xml::new();
        let mut used = 0;
        let mut waiting = subscription.waiting.lock().unwrap_or_else(PoisonError::into_inner);
        for count in 0..batch.most {
            let Some((dropped, event)) = waiting.next() else { break };
            let mut item = Xml::new();
            if dropped > 0 {
                item.open("w:DroppedEvents", &[("Action", uri::DROPPED_EVENTS)]);
                item.text(&dropped.to_string());
                item.close("w:DroppedEvents");
            }
            encoder.instance(&mut item, &event, None, subscription.selected.as_deref());
            used += batch.encoding.size(item.as_str());
            // The first goes out in any case: one that fits no reply would be in the way for ever.
            if used > batch.bytes && count > 0 {
                waiting.ahead = Some((dropped, event));
                break;
            }
            items.raw(item.as_str());
        }
        drop(waiting);
        if items.as_str().is_empty() {
            self.later.set(Some(Later { ready: Arc::clone(&subscription.ready), until: batch.deadline }));
            return Err(Fault::new(Code::TimedOut, "nothing happened in the time that the client gave"));
        }
        let mut xml = Xml::new();
        xml.open("n:PullResponse", &[]);
        xml.element("n:EnumerationContext", &spelled(subscription.id));
        xml.open("n:Items", &[]);
        xml.raw(items.as_str());
        xml.close("n:Items");
        xml.close("n:PullResponse");
        Ok(Reply {
            action: format!("{}/PullResponse", uri::ENUMERATION),
            body: xml.into_string(),
            ..Reply::default()
        })
    }

    fn eventing(&self, name: &str) -> Result<Node<'_, '_>, Fault> {
        let body = self.request.body.filter(|body| is(*body, uri::EVENTING, name));
        body.ok_or_else(|| {
            Fault::new(Code::InvalidMessage, format!("the body of the request is no wse:{name}"))
        })
    }
}

fn expires(what: &str, lasts: Duration) -> Reply {
    let mut xml = Xml::new();
    let tag = format!("e:{what}Response");
    xml.open(&tag, &[]);
    xml.element("e:Expires", &time::seconds(lasts));
    xml.close(&tag);
    Reply { action: format!("{}/{what}Response", uri::EVENTING), body: xml.into_string(), ..Reply::default() }
}
