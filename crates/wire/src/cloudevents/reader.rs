//! From an event as it was sent to a fact about a tenant: which meters read it, and how much.

use super::{
    data::{Found, WANTS_MAX, Want, walk},
    envelope::{Envelope, Fault, Text},
};
use crate::{
    catalog::bounded,
    problem::Problem,
    rescue::{self, sentence},
    v1::{
        amount::AmountError,
        check::{ID_MAX_BYTES, clipped},
        text::decimal_text,
    },
};
use domain::{
    catalog::{Catalog, Dimension, Meter, MeterKind},
    id::{TenantId, UserId},
    op::{Dimensions, Fact, Movement},
    time::Instant,
};
use engine::requests::{Event, OpId};
use std::sync::Arc;

/// Where the fixed wants stand; dimensions follow, then meters.
const USER: usize = 0;
const OPERATION: usize = 1;
const FIRST_DIMENSION: usize = 2;

/// Turns envelopes of one request into events. Remembers the last tenant, user, source and type, since the events of a
/// batch mostly share them.
pub struct Reader<'c, 'a> {
    catalog: &'c Catalog,
    types: Vec<EventType<'c>>,
    last_type: usize,
    found: Vec<Found<'a>>,
    tenant: Option<TenantId>,
    user: Option<UserId>,
    source: Option<Arc<str>>,
}

/// An event type and the meters that read it.
struct EventType<'c> {
    name: &'c str,
    meters: Vec<&'c Meter>,
    wants: Vec<Want>,
    any_gauge: bool,
    needs_object: bool,
}

impl<'c> EventType<'c> {
    fn new(name: &'c str, meters: Vec<&'c Meter>, dimensions: &[Dimension]) -> Self {
        let mut wants = vec![Want::of_member("user_id"), Want::of_member("op")];
        wants.extend(dimensions.iter().map(|dimension| Want::of_member(dimension.key.as_str())));
        wants.extend(meters.iter().map(|meter| Want::of_pointer(&meter.value_pointer)));
        Self {
            name,
            any_gauge: meters.iter().any(|meter| meter.kind == MeterKind::Gauge),
            needs_object: !wants.iter().any(Want::is_whole),
            meters,
            wants,
        }
    }
}

impl<'c, 'a> Reader<'c, 'a> {
    /// A reader of events by the meters of this catalog.
    pub fn new(catalog: &'c Catalog) -> Self {
        let mut by_type: Vec<(&'c str, Vec<&'c Meter>)> = Vec::new();
        for meter in catalog.meters.values() {
            match by_type.iter_mut().find(|(name, _)| *name == &*meter.event_type) {
                Some((_, meters)) => meters.push(meter),
                None => by_type.push((&meter.event_type, vec![meter])),
            }
        }
        let of_type = |(name, meters)| EventType::new(name, meters, &catalog.dimensions);
        Self {
            catalog,
            types: by_type.into_iter().map(of_type).collect(),
            last_type: 0,
            found: Vec::new(),
            tenant: None,
            user: None,
            source: None,
        }
    }

    /// The event in an envelope. With `plain`, `specversion` and `source` may be missing.
    ///
    /// # Errors
    /// A problem that says what this event lacks.
    pub fn event(&mut self, envelope: &Envelope<'a>, plain: bool) -> Result<Event, Problem> {
        check_envelope(envelope, plain)?;
        let id = required(&envelope.id, "id")?;
        let event_type = self.event_type(required(&envelope.event_type, "type")?)?;
        let tenant = self.tenant(required(&envelope.subject, "subject")?)?;
        let source = match &envelope.source {
            Text::Absent if plain => "",
            source => required(source, "source")?,
        };
        check_id("id", id)?;
        let source = self.source(source)?;
        let time = time(&envelope.time)?;
        self.walk(envelope, event_type)?;
        let user = self.user()?;
        let movements = self.movements(event_type)?;
        let fact = Fact { movements, time, dimensions: self.dimensions()?, binding: None };
        Ok(Event { tenant, user, id: OpId { source, id: id.into() }, fact })
    }

    fn event_type(&mut self, name: &str) -> Result<usize, Problem> {
        if self.types.get(self.last_type).is_some_and(|known| known.name == name) {
            return Ok(self.last_type);
        }
        match self.types.iter().position(|known| known.name == name) {
            Some(index) => {
                self.last_type = index;
                Ok(index)
            }
            None => Err(rescue::UNKNOWN_EVENT_TYPE.problem(format!(
                "No meter reads events of type {:?}. Name a meter, or set event_type on one in the catalog.",
                clipped(name)
            ))),
        }
    }

    fn tenant(&mut self, subject: &str) -> Result<TenantId, Problem> {
        match &self.tenant {
            Some(tenant) if tenant.as_str() == subject => Ok(tenant.clone()),
            _ => {
                let tenant = TenantId::new(subject).map_err(|error| {
                    invalid(format!("\"subject\" must be the tenant's id, and can't be used: {error}"))
                })?;
                self.tenant = Some(tenant.clone());
                Ok(tenant)
            }
        }
    }

    fn source(&mut self, source: &str) -> Result<Arc<str>, Problem> {
        match &self.source {
            Some(known) if **known == *source => Ok(known.clone()),
            _ => {
                if !source.is_empty() {
                    check_id("source", source)?;
                }
                let source: Arc<str> = source.into();
                self.source = Some(source.clone());
                Ok(source)
            }
        }
    }

    fn walk(&mut self, envelope: &Envelope<'a>, event_type: usize) -> Result<(), Problem> {
        let event_type = &self.types[event_type];
        self.found.clear();
        self.found.resize(event_type.wants.len(), Found::Absent);
        let Some(data) = envelope.data.map(|data| data.get()) else { return Ok(()) };
        if data == "null" {
            return Ok(());
        }
        if event_type.needs_object && !data.starts_with('{') {
            return Err(invalid("\"data\" must be a JSON object"));
        }
        let walks = event_type.wants.chunks(WANTS_MAX).zip(self.found.chunks_mut(WANTS_MAX));
        for (wants, found) in walks {
            walk(data, wants, found).map_err(|error| invalid(format!("\"data\" can't be read: {error}")))?;
        }
        Ok(())
    }

    fn user(&mut self) -> Result<Option<UserId>, Problem> {
        match &self.found[USER] {
            Found::Absent | Found::Null => Ok(None),
            Found::Text(user) => {
                if let Some(known) = self.user.as_ref().filter(|known| known.as_str() == user) {
                    return Ok(Some(known.clone()));
                }
                let user =
                    UserId::new(user).map_err(|error| invalid(format!("\"data.user_id\" can't be used: {error}")))?;
                self.user = Some(user.clone());
                Ok(Some(user))
            }
            _ => Err(invalid("\"data.user_id\" must be one string")),
        }
    }

    fn movements(&self, event_type: usize) -> Result<Vec<(domain::id::MeterKey, Movement)>, Problem> {
        let event_type = &self.types[event_type];
        let set = match &self.found[OPERATION] {
            Found::Absent | Found::Null => false,
            Found::Text(word) if word == "add" => false,
            Found::Text(word) if word == "set" => true,
            // On counters `op` has no meaning and may well be a word of the sender's own.
            _ if !event_type.any_gauge => false,
            _ => return Err(invalid("\"data.op\" must be \"set\" or \"add\"")),
        };
        let values = &self.found[FIRST_DIMENSION + self.catalog.dimensions.len()..];
        let mut movements = Vec::with_capacity(event_type.meters.len());
        for (meter, value) in event_type.meters.iter().zip(values) {
            let set = set && (meter.kind == MeterKind::Gauge || !event_type.any_gauge);
            let movement = match (amount(meter, value)?, set) {
                (Some(value), true) => Movement::Set(value),
                (None, true) => {
                    return Err(rescue::INVALID_AMOUNT
                        .problem(format!("Setting \"{}\" needs a value at {:?}.", meter.key, meter.value_pointer)));
                }
                (value, false) => Movement::Add(value.unwrap_or(1)),
            };
            movements.push((meter.key.clone(), movement));
        }
        Ok(movements)
    }

    fn dimensions(&self) -> Result<Dimensions, Problem> {
        let declared = &self.catalog.dimensions;
        let values = &self.found[FIRST_DIMENSION..FIRST_DIMENSION + declared.len()];
        let mut given = Vec::new();
        for (dimension, value) in declared.iter().zip(values) {
            match value {
                Found::Absent | Found::Null => {}
                Found::Text(value) => given.push((dimension.key.as_str(), &**value)),
                _ => {
                    return Err(rescue::INVALID_DIMENSION
                        .problem(format!("The dimension \"data.{}\" must be one string.", dimension.key)));
                }
            }
        }
        Ok(if given.is_empty() { Dimensions::new() } else { bounded(self.catalog, given.into_iter()) })
    }
}

fn check_envelope(envelope: &Envelope<'_>, plain: bool) -> Result<(), Problem> {
    match envelope.fault {
        Some(Fault::NotAnObject) => return Err(invalid("an event must be a JSON object")),
        Some(Fault::Repeated(name)) => return Err(invalid(format!("\"{name}\" is given twice"))),
        None => {}
    }
    match &envelope.specversion {
        Text::Given(version) if version == "1.0" => {}
        Text::Absent if plain => {}
        _ => return Err(invalid("\"specversion\" must be \"1.0\"")),
    }
    if envelope.has_base64 {
        return Err(invalid("send JSON in \"data\"; \"data_base64\" is not read"));
    }
    Ok(())
}

fn required<'e>(text: &'e Text<'_>, name: &str) -> Result<&'e str, Problem> {
    match text {
        Text::Given(text) if !text.is_empty() => Ok(text),
        Text::Wrong => Err(invalid(format!("\"{name}\" must be a string"))),
        Text::Given(_) | Text::Absent => Err(invalid(format!("\"{name}\" is missing"))),
    }
}

fn check_id(name: &str, id: &str) -> Result<(), Problem> {
    if id.len() > ID_MAX_BYTES || id.chars().any(char::is_control) {
        return Err(invalid(format!("\"{name}\" must have at most {ID_MAX_BYTES} bytes and no control characters")));
    }
    Ok(())
}

fn time(time: &Text<'_>) -> Result<Option<Instant>, Problem> {
    match time {
        Text::Absent => Ok(None),
        Text::Given(text) => match Instant::parse(text) {
            Some(at) => Ok(Some(at)),
            None => Err(invalid(format!("\"time\" must be RFC 3339 with an offset, not {:?}", clipped(text)))),
        },
        Text::Wrong => Err(invalid("\"time\" must be a string")),
    }
}

/// The amount for a meter; `None` where the data has none.
fn amount(meter: &Meter, found: &Found<'_>) -> Result<Option<i64>, Problem> {
    let pointer = &meter.value_pointer;
    let message = match found {
        Found::Absent => return Ok(None),
        Found::Amount(amount) => return Ok(Some(*amount)),
        Found::NoAmount(AmountError::TooLarge) => {
            return Err(rescue::AMOUNT_TOO_LARGE.problem(format!("The amount at {pointer:?} is beyond 2^53 - 1.")));
        }
        Found::NoAmount(AmountError::Fraction(number)) => format!(
            "The amount at {pointer:?} must be an integer in the smallest unit of \"{}\" ({}, of which one is {}), not \
             {number}.",
            meter.key,
            meter.unit,
            decimal_text(1, meter.decimals)
        ),
        Found::Repeated => format!("The amount at {pointer:?} is given twice."),
        Found::Text(_) | Found::Null | Found::Other => format!("The amount at {pointer:?} must be a number."),
    };
    Err(rescue::INVALID_AMOUNT.problem(message))
}

fn invalid(message: impl AsRef<str>) -> Problem {
    rescue::INVALID_EVENT.problem(sentence(message.as_ref()))
}
