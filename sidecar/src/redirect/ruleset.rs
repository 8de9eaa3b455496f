//! The ruleset as a batch of `nf_tables` messages. Numbers are those of `linux/netfilter/nf_tables.h`.
//!
//! ```text
//! table inet tidegate {
//!   chain prerouting {
//!     type nat hook prerouting priority dstnat; policy accept;
//!     iifname != "lo" tcp dport 8000 redirect to :15120        one for each guarded port
//!   }
//! }
//! ```

use super::Redirect;
use super::message::{Attributes, Head, Messages};

const TABLE: &str = "tidegate";
const CHAIN: &str = "prerouting";

const SUBSYSTEM: u16 = 10;
const BATCH_BEGIN: u16 = 0x10;
const BATCH_END: u16 = 0x11;
const NEW_TABLE: u16 = 0;
const DELETE_TABLE: u16 = 2;
const NEW_CHAIN: u16 = 3;
const NEW_RULE: u16 = 6;

const FLAG_ACK: u16 = 0x04;
const FLAG_CREATE: u16 = 0x400;
const FLAG_APPEND: u16 = 0x800;

const UNSPECIFIED: u8 = 0;
const INET: u8 = 1;
const REGISTER: u32 = 1;

/// A batch that the kernel takes whole or not at all.
pub(super) struct Batch {
    /// All of it.
    pub(super) messages: Messages,
    /// Sequence number of the last message that is acknowledged, which happens when the batch is in force.
    pub(super) acknowledged: u32,
}

/// Replaces the table by one for `redirect`.
pub(super) fn batch(redirect: &Redirect) -> Batch {
    let mut messages = Messages::default();
    messages.push(end_of_batch(BATCH_BEGIN), &Attributes::default());
    let table = Attributes::default().string(1, TABLE);
    messages.push(table_message(NEW_TABLE, FLAG_CREATE), &table);
    messages.push(table_message(DELETE_TABLE, 0), &table);
    messages.push(table_message(NEW_TABLE, FLAG_CREATE), &table);
    let mut acknowledged = messages.push(table_message(NEW_CHAIN, FLAG_CREATE | FLAG_ACK), &chain());
    for port in &redirect.guarded {
        let head = table_message(NEW_RULE, FLAG_CREATE | FLAG_APPEND | FLAG_ACK);
        acknowledged = messages.push(head, &rule(*port, redirect.to));
    }
    messages.push(end_of_batch(BATCH_END), &Attributes::default());
    Batch { messages, acknowledged }
}

fn end_of_batch(kind: u16) -> Head {
    Head { kind, flags: 0, family: UNSPECIFIED, resource: SUBSYSTEM }
}

fn table_message(number: u16, flags: u16) -> Head {
    Head { kind: SUBSYSTEM << 8 | number, flags, family: INET, resource: 0 }
}

fn chain() -> Attributes {
    const PRE_ROUTING: u32 = 0;
    const DSTNAT: i32 = -100;
    const ACCEPT: u32 = 1;
    let hook = Attributes::default().number(1, PRE_ROUTING).bytes(2, &DSTNAT.to_be_bytes());
    Attributes::default()
        .string(1, TABLE)
        .string(3, CHAIN)
        .nested(4, &hook)
        .number(5, ACCEPT)
        .string(7, "nat")
}

fn rule(port: u16, to: u16) -> Attributes {
    const INPUT_INTERFACE_NAME: u32 = 6;
    const TRANSPORT_PROTOCOL: u32 = 16;
    let mut loopback = [0; 16];
    loopback[..2].copy_from_slice(b"lo");
    let expressions = [
        meta(INPUT_INTERFACE_NAME),
        compare(Comparison::Differs, &loopback),
        meta(TRANSPORT_PROTOCOL),
        compare(Comparison::Equals, &[libc::IPPROTO_TCP as u8]),
        destination_port(),
        compare(Comparison::Equals, &port.to_be_bytes()),
        immediate(&to.to_be_bytes()),
        redirect_to_register(),
    ];
    let list = expressions.iter().fold(Attributes::default(), |list, expression| list.nested(1, expression));
    Attributes::default().string(1, TABLE).string(2, CHAIN).nested(4, &list)
}

fn expression(name: &str, data: &Attributes) -> Attributes {
    Attributes::default().string(1, name).nested(2, data)
}

fn meta(key: u32) -> Attributes {
    expression("meta", &Attributes::default().number(1, REGISTER).number(2, key))
}

#[derive(Clone, Copy)]
enum Comparison {
    Equals = 0,
    Differs = 1,
}

fn compare(comparison: Comparison, value: &[u8]) -> Attributes {
    let value = Attributes::default().bytes(1, value);
    expression(
        "cmp",
        &Attributes::default().number(1, REGISTER).number(2, comparison as u32).nested(3, &value),
    )
}

fn destination_port() -> Attributes {
    const TRANSPORT_HEADER: u32 = 2;
    const OFFSET: u32 = 2;
    const LENGTH: u32 = 2;
    let data = Attributes::default().number(1, REGISTER).number(2, TRANSPORT_HEADER);
    expression("payload", &data.number(3, OFFSET).number(4, LENGTH))
}

fn immediate(value: &[u8]) -> Attributes {
    let value = Attributes::default().bytes(1, value);
    expression("immediate", &Attributes::default().number(1, REGISTER).nested(2, &value))
}

fn redirect_to_register() -> Attributes {
    const PORT_IS_GIVEN: u32 = 2;
    expression(
        "redir",
        &Attributes::default().number(1, REGISTER).number(2, REGISTER).number(3, PORT_IS_GIVEN),
    )
}
