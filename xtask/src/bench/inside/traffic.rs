//! A server that runs in a container, and the clients that load it from outside: one stream, or many small questions.

use std::io::{Error, ErrorKind, Read, Result, Write};
use std::net::{Shutdown, SocketAddr, TcpListener, TcpStream};
use std::time::{Duration, Instant};

use rustix::thread::{CpuSet, sched_getaffinity, sched_setaffinity};

/// Where the server listens.
pub const PORT: u16 = 5001;
/// First byte of a connection: swallow everything, then say how much it was.
const SWALLOW: u8 = b's';
/// First byte of a connection: answer every question.
const ANSWER: u8 = b'a';
/// Bytes of a question and of its answer, like a small HTTP exchange's.
const QUESTION: [u8; 128] = [b'q'; 128];
const REPLY: [u8; 512] = [b'r'; 512];
/// One write of a stream.
static BLOCK: [u8; 128 << 10] = [0; 128 << 10];
/// How long a round loads the server.
const DURATION: Duration = Duration::from_secs(1);
const CONNECTIONS: usize = 8;
/// How long the server may take to be there.
const PATIENCE: Duration = Duration::from_secs(10);

/// Who keeps to which processor: where the scheduler puts the two makes more of a difference than the way between them.
#[derive(Clone, Copy)]
enum Side {
    Client,
    Server,
}

/// Keeps this thread, and those that it starts, to the first processor that it may use, or to the last.
fn keep_to(side: Side) -> Result<()> {
    let allowed = sched_getaffinity(None)?;
    let mut processors = (0..CpuSet::MAX_CPU).filter(|processor| allowed.is_set(*processor));
    let chosen = match side {
        Side::Client => processors.next(),
        Side::Server => processors.next_back(),
    };
    let mut only = CpuSet::new();
    only.set(chosen.ok_or_else(|| Error::other("no processor is allowed"))?);
    Ok(sched_setaffinity(None, &only)?)
}

/// A client's load, from its processor.
pub fn load(address: SocketAddr, by: fn(SocketAddr) -> Result<f64>) -> Result<f64> {
    std::thread::scope(|scope| {
        let client = scope.spawn(|| {
            keep_to(Side::Client)?;
            by(address)
        });
        client.join().map_err(|_| Error::other("a client panicked"))?
    })
}

/// The same, in a container beside the server's: prints the figure.
pub fn load_and_print(by: &str, address: &str) -> Result<()> {
    let address = address.parse().map_err(|error| Error::new(ErrorKind::InvalidInput, error))?;
    println!("{}", load(address, if by == "stream" { stream } else { requests })?);
    Ok(())
}

/// Serves until it is killed: process 1 of a container.
pub fn serve() -> Result<()> {
    keep_to(Side::Server)?;
    let listener = TcpListener::bind(("0.0.0.0", PORT))?;
    for stream in listener.incoming() {
        let stream = stream?;
        std::thread::spawn(move || serve_one(stream));
    }
    Ok(())
}

fn serve_one(mut stream: TcpStream) -> Result<()> {
    stream.set_nodelay(true)?;
    let mut kind = [0];
    stream.read_exact(&mut kind)?;
    if kind[0] == ANSWER {
        let mut question = QUESTION;
        loop {
            stream.read_exact(&mut question)?;
            stream.write_all(&REPLY)?;
        }
    }
    let mut buffer = vec![0; BLOCK.len()];
    let mut count = 0_u64;
    loop {
        match stream.read(&mut buffer)? {
            0 => return stream.write_all(&count.to_le_bytes()),
            length => count += length as u64,
        }
    }
}

/// Bits per second that one stream carries, by what arrived.
pub fn stream(address: SocketAddr) -> Result<f64> {
    let mut stream = connect(address)?;
    stream.write_all(&[SWALLOW])?;
    let begun = Instant::now();
    while begun.elapsed() < DURATION {
        stream.write_all(&BLOCK)?;
    }
    stream.shutdown(Shutdown::Write)?;
    let mut count = [0; 8];
    stream.read_exact(&mut count)?;
    Ok(u64::from_le_bytes(count) as f64 * 8.0 / begun.elapsed().as_secs_f64())
}

/// Questions per second that are answered on several connections at once.
pub fn requests(address: SocketAddr) -> Result<f64> {
    let streams = (0..CONNECTIONS).map(|_| connect(address)).collect::<Result<Vec<_>>>()?;
    let begun = Instant::now();
    let ask = |mut stream: TcpStream| -> Result<u64> {
        stream.write_all(&[ANSWER])?;
        let (mut count, mut reply) = (0, REPLY);
        while begun.elapsed() < DURATION {
            stream.write_all(&QUESTION)?;
            stream.read_exact(&mut reply)?;
            count += 1;
        }
        Ok(count)
    };
    std::thread::scope(|scope| {
        let clients: Vec<_> = streams.into_iter().map(|stream| scope.spawn(move || ask(stream))).collect();
        let counts = clients.into_iter().map(|client| client.join().map_err(|_| Error::other("a client panicked"))?);
        Ok(counts.sum::<Result<u64>>()? as f64 / begun.elapsed().as_secs_f64())
    })
}

/// Waits until the server answers: a published port may take a connection before there is anybody behind it.
pub fn wait_for(address: SocketAddr) -> Result<()> {
    let deadline = Instant::now() + PATIENCE;
    let attempt = || -> Result<()> {
        let mut stream = connect(address)?;
        stream.write_all(&[ANSWER])?;
        stream.write_all(&QUESTION)?;
        stream.read_exact(&mut REPLY.clone())
    };
    loop {
        match attempt() {
            Ok(()) => return Ok(()),
            Err(error) if Instant::now() > deadline => {
                return Err(Error::new(ErrorKind::TimedOut, format!("no server behind {address}: {error}")));
            }
            Err(_) => std::thread::sleep(Duration::from_millis(10)),
        }
    }
}

fn connect(address: SocketAddr) -> Result<TcpStream> {
    let stream = TcpStream::connect_timeout(&address, PATIENCE)?;
    stream.set_nodelay(true)?;
    stream.set_read_timeout(Some(PATIENCE))?;
    stream.set_write_timeout(Some(PATIENCE))?;
    Ok(stream)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn questions_are_answered_and_a_stream_is_counted() {
        let listener = TcpListener::bind("127.0.0.1:0").unwrap();
        let address = listener.local_addr().unwrap();
        std::thread::spawn(move || {
            for stream in listener.incoming().flatten() {
                std::thread::spawn(move || serve_one(stream));
            }
        });
        wait_for(address).unwrap();
        let mut stream = connect(address).unwrap();
        stream.write_all(&[SWALLOW, 1, 2, 3]).unwrap();
        stream.shutdown(Shutdown::Write).unwrap();
        let mut count = [0; 8];
        stream.read_exact(&mut count).unwrap();
        assert_eq!(u64::from_le_bytes(count), 3);
    }
}
