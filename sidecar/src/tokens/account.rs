//! What one request has used, from what it asked for and what it was answered.

use http::HeaderMap;
use tidegate_core::{HeadOutcome, Tokens};

use super::Asked;
use super::ending::Style;
use super::meter::Meter;
use super::usual::Model;

/// Tokens of an answer between two looks at what is left.
const EVERY: u32 = 16;

/// The account of one request.
#[derive(Debug)]
pub struct Account {
    estimate: Tokens,
    style: Style,
    /// It has a prompt: an answer without usage is text that was generated.
    prompted: bool,
    /// Its client left the length of the answer open.
    open: bool,
    outcome: Option<HeadOutcome>,
    meter: Option<Meter>,
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
            prompted: asked.prompt().is_some(),
            open: asked.prompt().is_some_and(|prompt| prompt.max_output.is_none()) && asked.generates(),
            outcome: None,
            meter: None,
            model: Model::of(asked.model()),
            unsent: false,
            look_at: estimate.output,
        }
    }

    /// The engine could not be reached.
    pub fn unsent(&mut self) {
        self.unsent = true;
    }

    /// The head of the answer is there, or will not come.
    pub fn responded(&mut self, outcome: HeadOutcome) {
        self.outcome = Some(outcome);
    }

    /// The body of the answer follows this head.
    pub fn answers(&mut self, headers: &HeaderMap) {
        self.meter = Some(Meter::new(headers));
    }

    /// Takes the next bytes of the answer. The last place in them where an event ended, if one did.
    pub fn feed(&mut self, data: &[u8]) -> Option<usize> {
        self.meter.as_mut()?.feed(data)
    }

    /// What a stream has used so far, now and then, once it is more than was reserved.
    pub fn look(&mut self) -> Option<Tokens> {
        let meter = self.meter.as_mut().filter(|meter| meter.is_stream())?;
        let used = meter.tokens(self.estimate.input)?;
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
        let prompt = Tokens { output: 0, ..self.estimate };
        if self.unsent {
            return Some(Tokens::default());
        }
        match self.outcome {
            Some(HeadOutcome::Status(200..300)) => {
                let input = if self.prompted { self.estimate.input } else { 0 };
                let Some(meter) = &mut self.meter else { return Some(prompt) };
                let used = meter.tokens(input)?;
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
