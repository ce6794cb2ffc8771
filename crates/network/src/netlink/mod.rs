//! Netlink over a blocking socket: a whole batch in one send, its answer in one receive.

mod message;
mod socket;

pub(crate) use message::{
    APPEND, Attributes, Batch, CREATE, DUMP, EXCLUSIVE, REPLACE, attribute, attributes, number, number_be, received,
    text,
};
pub use socket::Refusal;
pub(crate) use socket::Socket;
