//! What one request has used, from what it asked for and what it was answered.

use std::cell::RefCell;
use std::rc::Rc;

use http::HeaderMap;
use tidegate_core::{HeadOutcome, Tokens};

use super::Asked;
use super::ending::Style;
use super::grpc::{Method, RequestReader};
use super::meter::Meter;
use super::usual::Model;

/// Tokens of an answer between two looks at what is left.
const EVERY: u32 = 16;

/// The account of one request.
#[derive(Debug)]
pub struct Account {
    estimate: Tokens,
    style: Style,
    /// The method of gRPC that it calls.
    call: Option<Method>,
    /// It has a prompt: an answer without usage is text that was generated.
    prompted: bool,
    /// Its client left the length of the answer open.
    open: bool,
    outcome: Option<HeadOutcome>,
    meter: Option<Meter>,
    /// What its client asks for on the way: several things, one after the other.
    prompts: Option<Rc<RefCell<RequestReader>>>,
    /// The model that it asks for.
    model: Model,
    /// It never reached the engine.
    unsent: bool,
    /// When to look next.
    look_at: u32,
}

impl Account {
    /// Of a request that was admitted with this estimate.
    pub fn new(asked: &Asked, estimate: Tokens) -> Self {
        Self {
            estimate,
            style: asked.style(),
            call: asked.call(),
            prompted: asked.prompt().is_some(),
            open: asked.prompt().is_some_and(|prompt| prompt.max_output.is_none()) && asked.generates(),
            outcome: None,
            meter: None,
            prompts: asked
                .call()
                .filter(|call| call.is_dialogue())
                .map(|call| Rc::new(RefCell::new(RequestReader::new(call)))),
            model: Model::of(asked.model()),
            unsent: false,
            look_at: estimate.output,
        }
    }

    /// Is to be shown what its client sends, where that is more than one request.
    pub fn prompts(&self) -> Option<Rc<RefCell<RequestReader>>> {
        self.prompts.clone()
    }

    /// Tokens of its prompts, as far as they are known.
    fn input(&self) -> u32 {
        let sent = self.prompts.as_ref().map_or(0, |prompts| prompts.borrow().input());
        self.estimate.input.max(sent)
    }

    /// The engine could not be reached.
    pub fn unsent(&mut self) {
        self.unsent = true;
    }

    /// The head of the answer is there, or will not come.
    pub fn responded(&mut self, outcome: HeadOutcome) {
        self.outcome = Some(outcome);
    }

    /// The answer has ended with this status of gRPC, as HTTP would say it. A call that failed before anything was generated
    /// is as one that failed at once.
    pub fn ended_with(&mut self, status: u16) {
        let generated =
            self.meter.as_mut().is_none_or(|meter| meter.tokens(0).is_none_or(|used| used.output > 0));
        if !generated {
            self.outcome = Some(HeadOutcome::Status(status));
        }
    }

    /// The body of the answer follows this head.
    pub fn answers(&mut self, headers: &HeaderMap) {
        self.meter = Some(match self.call {
            Some(call) => Meter::of_call(call, headers),
            None => Meter::new(headers),
        });
    }

    /// Takes the next bytes of the answer. The last place in them where an event ended, if one did.
    pub fn feed(&mut self, data: &[u8]) -> Option<usize> {
        self.meter.as_mut()?.feed(data)
    }

    /// What a stream has used so far, now and then, once it is more than was reserved.
    pub fn look(&mut self) -> Option<Tokens> {
        let input = self.input();
        let meter = self.meter.as_mut().filter(|meter| meter.is_stream())?;
        let mut used = meter.tokens(input)?;
        used.input = used.input.max(self.prompts.as_ref().map_or(0, |_| input));
        if used.output < self.look_at {
            return None;
        }
        self.look_at = used.output.saturating_add(EVERY);
        Some(used)
    }

    /// How its streams end.
    pub fn style(&self) -> Style {
        self.style
    }

    /// The counter of the answer.
    pub fn meter(&self) -> Option<&Meter> {
        self.meter.as_ref()
    }

    /// The model that it asks for.
    pub fn model(&self) -> Model {
        self.model
    }

    /// Tokens that were generated for a client that left their number open.
    pub fn open_output(&self, used: &Tokens) -> Option<u32> {
        (self.open && matches!(self.outcome, Some(HeadOutcome::Status(200..300)))).then_some(used.output)
    }

    /// What it has used in the end. None: nobody knows, and the estimate stands.
    ///
    /// What the engine never got, or refused to take, costs nothing. Of what failed there, the prompt was read. An
    /// answer costs what it says; without usage, what of it came.
    pub fn used(&mut self) -> Option<Tokens> {
        let input = self.input();
        let prompt = Tokens { input, output: 0, ..self.estimate };
        if self.unsent {
            return Some(Tokens::default());
        }
        match self.outcome {
            Some(HeadOutcome::Status(200..300)) => {
                let Some(meter) = &mut self.meter else { return Some(prompt) };
                let mut used = meter.tokens(if self.prompted { input } else { 0 })?;
                used.input = used.input.max(self.prompts.as_ref().map_or(0, |_| input));
                Some(if self.prompted { used } else { Tokens { output: 0, ..used } })
            }
            // Backpressure, and mistakes of the client.
            Some(HeadOutcome::Status(503 | ..500)) => Some(Tokens::default()),
            Some(HeadOutcome::Status(_) | HeadOutcome::TimedOut | HeadOutcome::Failed) | None => Some(prompt),
        }
    }
}

#[cfg(test)]
mod tests;
