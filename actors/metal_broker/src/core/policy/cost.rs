//! What an expression reads and what one evaluation may cost at most, told from its syntax alone. CEL has no loops but over what
//! is there already, so the longest way through is bounded: each node is a step, and what stands in a loop counts as often as the
//! loop's range is long at most.

use cel::IdedExpr;
use cel::common::ast::{EntryExpr, Expr, LiteralValue};

use super::values::{CLUSTER, MACHINE, MACHINE_OWN, RACK, TIME};

/// Longest list, map or text that a field holds.
const FIELD_LENGTH_MAX: u64 = 256;
/// Deepest nesting: evaluation is recursive.
const DEPTH_MAX: usize = 100;

/// What an expression reads, and what it may cost.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct Facts {
    /// It reads what machines of one hardware class may differ in.
    pub per_machine: bool,
    /// It reads the request or the time, so what it says of a class holds for one request alone.
    pub per_ask: bool,
    /// Most steps of one evaluation.
    pub cost: u64,
}

impl Facts {
    /// Of an expression.
    ///
    /// # Errors
    /// What it names that there is not, for people.
    pub fn of(expression: &IdedExpr) -> Result<Self, String> {
        let mut reader = Reader::default();
        let size = reader.read(&expression.expr)?;
        reader.facts.cost = size.cost;
        Ok(reader.facts)
    }
}

/// What is known of a value before there is one.
#[derive(Debug, Clone, Copy, Default)]
struct Size {
    /// Steps to come to it.
    cost: u64,
    /// Its length, with all that is in it.
    length: u64,
}

#[derive(Debug, Default)]
struct Reader {
    facts: Facts,
    /// Names that loops bind, and how long what they stand for may be.
    bound: Vec<(String, u64)>,
    depth: usize,
}

impl Reader {
    fn read(&mut self, expression: &Expr) -> Result<Size, String> {
        self.depth += 1;
        if self.depth > DEPTH_MAX {
            return Err(format!("is nested more than {DEPTH_MAX} deep"));
        }
        let size = match expression {
            Expr::Unspecified => return Err("has a part that means nothing".into()),
            Expr::Literal(literal) => Size {
                cost: 1,
                length: match literal {
                    LiteralValue::String(text) => text.inner().len() as u64,
                    _ => 1,
                },
            },
            Expr::Ident(name) => self.name(name)?,
            Expr::Select(select) => self.field(&select.operand, &select.field)?,
            Expr::List(list) => self.all(list.elements.iter())?,
            Expr::Map(map) => self.entries(map.entries.iter().map(|e| &e.expr))?,
            Expr::Struct(_) => return Err("makes a message; there are none here".into()),
            Expr::Call(call) => {
                let target = call.target.iter().map(|t| &**t);
                let size = self.all(target.chain(&call.args))?;
                // what compares or joins texts and lists reads them
                Size {
                    cost: size.cost.saturating_add(size.length / 16),
                    length: size.length,
                }
            }
            Expr::Comprehension(loops) => {
                let range = self.read(&loops.iter_range.expr)?;
                let init = self.read(&loops.accu_init.expr)?;
                let names = self.bound.len();
                self.bound.push((loops.iter_var.clone(), range.length));
                if let Some(second) = &loops.iter_var2 {
                    self.bound.push((second.clone(), range.length));
                }
                self.bound.push((loops.accu_var.clone(), 0));
                let condition = self.read(&loops.loop_cond.expr)?;
                let step = self.read(&loops.loop_step.expr)?;
                let result = self.read(&loops.result.expr)?;
                self.bound.truncate(names);
                let turns = range.length.max(1);
                let each = condition.cost.saturating_add(step.cost);
                Size {
                    cost: [init.cost, result.cost, turns.saturating_mul(each)]
                        .iter()
                        .fold(range.cost, |sum, c| sum.saturating_add(*c)),
                    length: init.length.saturating_add(turns.saturating_mul(step.length.max(1))),
                }
            }
        };
        self.depth -= 1;
        Ok(Size {
            cost: size.cost.saturating_add(1),
            ..size
        })
    }

    fn all<'a>(&mut self, parts: impl Iterator<Item = &'a IdedExpr>) -> Result<Size, String> {
        let mut sum = Size::default();
        for part in parts {
            let size = self.read(&part.expr)?;
            sum.cost = sum.cost.saturating_add(size.cost);
            sum.length = sum.length.saturating_add(size.length.max(1));
        }
        Ok(sum)
    }

    fn entries<'a>(&mut self, entries: impl Iterator<Item = &'a EntryExpr>) -> Result<Size, String> {
        let mut sum = Size::default();
        for entry in entries {
            let size = match entry {
                EntryExpr::MapEntry(entry) => self.all([&entry.key, &entry.value].into_iter())?,
                EntryExpr::StructField(field) => self.all(std::iter::once(&field.value))?,
            };
            sum.cost = sum.cost.saturating_add(size.cost);
            sum.length = sum.length.saturating_add(size.length);
        }
        Ok(sum)
    }

    fn name(&mut self, name: &str) -> Result<Size, String> {
        if let Some((_, length)) = self.bound.iter().rev().find(|(bound, _)| bound == name) {
            return Ok(Size {
                cost: 1,
                length: *length,
            });
        }
        // whole, and not by one of its fields: it may be read for anything
        match name {
            "machine" | "rack" => self.facts.per_machine = true,
            "cluster" | "time" => self.facts.per_ask = true,
            _ => {
                return Err(format!("names '{name}'; there are machine, cluster, rack and time"));
            }
        }
        if name == "rack" {
            self.facts.per_ask = true;
        }
        Ok(Size {
            cost: 1,
            length: FIELD_LENGTH_MAX,
        })
    }

    fn field(&mut self, operand: &IdedExpr, field: &str) -> Result<Size, String> {
        let of = match &operand.expr {
            Expr::Ident(name) if !self.bound.iter().any(|(bound, _)| bound == name) => Some(name.as_str()),
            _ => None,
        };
        let known: &[&str] = match of {
            Some("machine") => MACHINE,
            Some("cluster") => CLUSTER,
            Some("rack") => RACK,
            Some("time") => TIME,
            _ => return self.read(&operand.expr),
        };
        let of = of.unwrap_or_default();
        if of == "machine" && MACHINE_OWN.contains(&field) {
            self.facts.per_machine = true;
        } else if !known.contains(&field) {
            let all: Vec<&str> = match of {
                "machine" => known.iter().chain(MACHINE_OWN).copied().collect(),
                _ => known.to_vec(),
            };
            return Err(format!("names {of}.{field}; there are {}", all.join(", ")));
        }
        match of {
            // what a rack has free changes with every claim
            "rack" => (self.facts.per_machine, self.facts.per_ask) = (true, true),
            "cluster" | "time" => self.facts.per_ask = true,
            _ => {}
        }
        Ok(Size {
            cost: 1,
            length: FIELD_LENGTH_MAX,
        })
    }
}
