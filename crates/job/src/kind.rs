//! A kind of job: its parameters, its world and its steps, and the type-erased form the engine runs.

use std::any::TypeId;
use std::collections::BTreeSet;
use std::sync::Arc;

use serde::Serialize;
use serde::de::DeserializeOwned;
use serde_json::Value;

use crate::context::Attempt;
use crate::{Context, Failure, MAX_STEPS, ids};

/// A kind of job. A file that defines one reads top-down: what it does in prose, the parameters, this impl with the
/// table of steps, then the steps in order, each beside its undo.
///
/// ```
/// use job::{Context, Failure, Kind, Steps, UndoReason};
/// # use std::sync::Mutex;
/// # #[derive(Default)] struct Shelf(Mutex<Option<String>>);
///
/// /// Puts a book on the shelf.
/// struct Shelve;
///
/// #[derive(serde::Serialize, serde::Deserialize)]
/// struct ShelveParams { title: String }
///
/// impl Kind for Shelve {
///     const NAME: &'static str = "shelve";
///     const VERSION: u32 = 1;
///     type Params = ShelveParams;
///     type World = Shelf;
///     fn steps() -> Steps<Self> {
///         Steps::new()
///             .step_without_undo("read the title", Self::read)
///             .step("put", Self::put, Self::take_away)
///     }
/// }
///
/// impl Shelve {
///     fn read(cx: &mut Context<'_, Shelve>) -> Result<String, Failure> {
///         Ok(cx.params().title.to_uppercase())
///     }
///
///     fn put(cx: &mut Context<'_, Shelve>) -> Result<(), Failure> {
///         let title: String = cx.output(Self::read)?;
///         *cx.world().0.lock().unwrap() = Some(title);
///         Ok(())
///     }
///
///     fn take_away(cx: &mut Context<'_, Shelve>, _why: UndoReason) -> Result<(), Failure> {
///         *cx.world().0.lock().unwrap() = None;
///         Ok(())
///     }
/// }
///
/// let shelf = std::sync::Arc::new(Shelf::default());
/// let engine = job::Engine::builder(std::sync::Arc::new(store::MemoryStore::new()))
///     .register::<Shelve>(shelf.clone())
///     .start()?;
/// let id = engine.submit(job::Submission::<Shelve>::new(ShelveParams { title: "Emma".into() }))?;
/// let status = engine.wait(id, std::time::Duration::from_secs(10)).unwrap();
/// assert_eq!(status.state, job::State::Completed);
/// assert_eq!(shelf.0.lock().unwrap().as_deref(), Some("EMMA"));
/// # Ok::<(), Box<dyn std::error::Error>>(())
/// ```
///
/// Whatever changes the meaning of recorded parameters, outputs, resume state or the list of steps takes a new
/// `VERSION`; jobs of a version that is not registered are parked. The old version can stay registered as a second
/// type with the same `NAME`.
pub trait Kind: Sized + Send + Sync + 'static {
    /// What the kind is called in the store, the API and logs: lower-case letters, digits and `-`.
    const NAME: &'static str;
    /// Counts incompatible changes, from 1.
    const VERSION: u32;
    /// Whether the job has its subject to itself: it is refused while another exclusive job of the same subject is not
    /// finished, and keeps others out until it is.
    const EXCLUSIVE: bool = true;
    /// What the job is to do. Recorded; at most about 60 KiB as JSON.
    type Params: Serialize + DeserializeOwned + Send + 'static;
    /// What steps act on: handles of the running process, given at registration. Anything that must survive a crash
    /// belongs into outputs or into the world's own storage.
    type World: Send + Sync + 'static;

    /// The steps in order. Called once per engine.
    fn steps() -> Steps<Self>;
}

/// Why a step is undone.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Serialize, serde::Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum UndoReason {
    /// Somebody cancelled the job: leave nothing behind.
    Cancelled,
    /// This step or a later one failed. What a later attempt can use may be kept (an export's `.partial`).
    Failed,
}

type Run<K> = Box<dyn Fn(&mut Context<'_, K>) -> Result<Value, Failure> + Send + Sync>;
type Undo<K> = Box<dyn Fn(&mut Context<'_, K>, UndoReason) -> Result<(), Failure> + Send + Sync>;

struct Step<K: Kind> {
    name: &'static str,
    /// Which function it is, so that a later step can name it as the source of an output.
    function: TypeId,
    weight: u32,
    run: Run<K>,
    undo: Option<Undo<K>>,
}

/// The list of steps of a kind, built in order.
pub struct Steps<K: Kind> {
    steps: Vec<Step<K>>,
}

impl<K: Kind> Steps<K> {
    /// No steps yet.
    #[expect(
        clippy::new_without_default,
        reason = "an empty list is the start of a builder, not a useful default"
    )]
    pub fn new() -> Steps<K> {
        Steps { steps: Vec::new() }
    }

    /// Adds a step and its undo.
    ///
    /// `run` may be called again after a crash, with whatever its earlier run left. `undo` is called for a step that
    /// started, whether or not it finished, and may be called again too. Its output is there for later steps with
    /// [`Context::output`]; the last step's output is the job's.
    #[must_use]
    pub fn step<T, F, U>(self, name: &'static str, run: F, undo: U) -> Steps<K>
    where
        T: Serialize + DeserializeOwned + 'static,
        F: Fn(&mut Context<'_, K>) -> Result<T, Failure> + Send + Sync + 'static,
        U: Fn(&mut Context<'_, K>, UndoReason) -> Result<(), Failure> + Send + Sync + 'static,
    {
        self.push(name, run, Some(Box::new(undo)))
    }

    /// Adds a step that leaves nothing to undo: one that only looks, or whose effect is harmless to keep.
    #[must_use]
    pub fn step_without_undo<T, F>(self, name: &'static str, run: F) -> Steps<K>
    where
        T: Serialize + DeserializeOwned + 'static,
        F: Fn(&mut Context<'_, K>) -> Result<T, Failure> + Send + Sync + 'static,
    {
        self.push(name, run, None)
    }

    /// Says how much of the whole job the step added last is, for the percentage; 1 if not said.
    #[must_use]
    pub fn weight(mut self, weight: u32) -> Steps<K> {
        if let Some(last) = self.steps.last_mut() {
            last.weight = weight;
        }
        self
    }

    pub(crate) fn names(&self) -> Vec<String> {
        self.steps.iter().map(|step| step.name.to_owned()).collect()
    }

    fn push<T, F>(mut self, name: &'static str, run: F, undo: Option<Undo<K>>) -> Steps<K>
    where
        T: Serialize + DeserializeOwned + 'static,
        F: Fn(&mut Context<'_, K>) -> Result<T, Failure> + Send + Sync + 'static,
    {
        let function = TypeId::of::<F>();
        let run = Box::new(move |cx: &mut Context<'_, K>| {
            let output = run(cx)?;
            serde_json::to_value(output).map_err(|error| Failure::from_error(ids::UNREADABLE, &error))
        });
        self.steps.push(Step { name, function, weight: 1, run, undo });
        self
    }
}

/// A kind with its world and type erased: what the engine holds.
pub(crate) trait Runnable: Send + Sync {
    fn exclusive(&self) -> bool;
    /// Names and weights of the steps, in order.
    fn steps(&self) -> Vec<(&'static str, u32)>;
    fn has_undo(&self, step: usize) -> bool;
    fn run(&self, attempt: &Attempt<'_>) -> Result<Value, Failure>;
    fn undo(&self, attempt: &Attempt<'_>, reason: UndoReason) -> Result<(), Failure>;
}

pub(crate) struct Registered<K: Kind> {
    world: Arc<K::World>,
    steps: Vec<Step<K>>,
}

/// Why a kind cannot be registered: a bug of its author.
#[derive(Debug, thiserror::Error)]
pub(crate) enum KindError {
    #[error("its name {0:?} is not lower-case letters, digits and dashes")]
    Name(&'static str),
    #[error("its version is 0; they count from 1")]
    Version,
    #[error("it has {0} steps; 1 to {MAX_STEPS} are allowed")]
    Count(usize),
    #[error("two steps are called {0:?}")]
    SameName(&'static str),
    #[error("step {0:?} is the same function as an earlier step, so its output could not be told apart")]
    SameFunction(&'static str),
    #[error("it is registered twice in version {0}")]
    Twice(u32),
}

impl<K: Kind> Registered<K> {
    pub(crate) fn new(world: Arc<K::World>) -> Result<Registered<K>, KindError> {
        let plain = |byte: u8| byte.is_ascii_lowercase() || byte.is_ascii_digit() || byte == b'-';
        if K::NAME.is_empty() || K::NAME.len() > 64 || !K::NAME.bytes().all(plain) {
            return Err(KindError::Name(K::NAME));
        }
        if K::VERSION == 0 {
            return Err(KindError::Version);
        }
        let steps = K::steps().steps;
        if steps.is_empty() || steps.len() > MAX_STEPS {
            return Err(KindError::Count(steps.len()));
        }
        let (mut names, mut functions) = (BTreeSet::new(), BTreeSet::new());
        for step in &steps {
            if !names.insert(step.name) {
                return Err(KindError::SameName(step.name));
            }
            if !functions.insert(step.function) {
                return Err(KindError::SameFunction(step.name));
            }
        }
        Ok(Registered { world, steps })
    }

    pub(crate) fn world(&self) -> &Arc<K::World> {
        &self.world
    }

    /// Index and name of the step that is this function.
    pub(crate) fn find(&self, function: TypeId) -> Option<(usize, &'static str)> {
        let index = self.steps.iter().position(|step| step.function == function)?;
        Some((index, self.steps[index].name))
    }
}

impl<K: Kind> Runnable for Registered<K> {
    fn exclusive(&self) -> bool {
        K::EXCLUSIVE
    }

    fn steps(&self) -> Vec<(&'static str, u32)> {
        self.steps.iter().map(|step| (step.name, step.weight)).collect()
    }

    fn has_undo(&self, step: usize) -> bool {
        self.steps[step].undo.is_some()
    }

    fn run(&self, attempt: &Attempt<'_>) -> Result<Value, Failure> {
        let mut cx = Context::new(self, attempt)?;
        (self.steps[attempt.step].run)(&mut cx)
    }

    fn undo(&self, attempt: &Attempt<'_>, reason: UndoReason) -> Result<(), Failure> {
        match &self.steps[attempt.step].undo {
            Some(undo) => undo(&mut Context::new(self, attempt)?, reason),
            None => Ok(()),
        }
    }
}
