//! The socket: KRPC messages out and in.

use crate::krpc::Message;
use std::io::{self, ErrorKind};
use std::net::{Ipv4Addr, SocketAddr, SocketAddrV4, UdpSocket};
use std::time::Duration;

pub(crate) struct Socket {
    socket: UdpSocket,
    buffer: Vec<u8>,
}

/// Errors that a read may return although the socket works. (Some systems return the last two after an
/// earlier datagram could not be delivered.)
const NOTHING_CAME: [ErrorKind; 5] = [
    ErrorKind::WouldBlock,
    ErrorKind::TimedOut,
    ErrorKind::Interrupted,
    ErrorKind::ConnectionReset,
    ErrorKind::ConnectionRefused,
];

impl Socket {
    /// Port 0 is any that is free.
    pub(crate) fn bind(port: u16) -> io::Result<Self> {
        let socket = UdpSocket::bind((Ipv4Addr::UNSPECIFIED, port))?;
        Ok(Self { socket, buffer: vec![0; 65_536] }) // no datagram is longer
    }

    pub(crate) fn port(&self) -> io::Result<u16> {
        Ok(self.socket.local_addr()?.port())
    }

    /// Sends a message. An error is ignored: the datagram counts as lost on the way, and the request times
    /// out.
    pub(crate) fn send(&self, message: Message, to: SocketAddrV4) {
        let _ = self.socket.send_to(&message.encode(), to);
    }

    /// Waits for a datagram, but no longer than this, or for ever. `None` if none came, or one that is not KRPC.
    pub(crate) fn receive(&mut self, wait: Option<Duration>) -> io::Result<Option<(Message, SocketAddrV4)>> {
        // Zero is refused. The system rounds up, to a few milliseconds.
        self.socket.set_read_timeout(wait.map(|wait| wait.max(Duration::from_micros(1))))?;
        match self.socket.recv_from(&mut self.buffer) {
            Ok((length, SocketAddr::V4(from))) => {
                let datagram = self.buffer.get(..length).unwrap_or_default();
                Ok(Message::decode(datagram).map(|message| (message, from)))
            }
            Ok(_) => Ok(None),
            Err(error) if NOTHING_CAME.contains(&error.kind()) => Ok(None),
            Err(error) => Err(error),
        }
    }
}
