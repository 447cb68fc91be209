//! A good client among many that only sit there, and many that hold the relay up on purpose: the
//! program itself, over TCP and TLS. `cargo test --test crowd -- --nocapture` shows the figures.
#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic, clippy::indexing_slicing, clippy::print_stdout)]

#[path = "support/binary.rs"]
mod binary;

use std::io;
use std::net::{Ipv4Addr, SocketAddr};
use std::sync::Arc;
use std::time::{Duration, Instant};

use binary::{Aws, Caller, Place, code, get, soon, starting_tls};
use rustls::ClientConfig;
use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
use tokio::sync::Semaphore;
use tokio::task::{JoinHandle, JoinSet};
use tokio::time::timeout;

/// Clients that are logged in and say nothing.
const IDLE: usize = 2000;
/// Clients that send a command octet by octet.
const COMMAND_DRIBBLERS: usize = 300;
/// Clients that begin a TLS handshake and stop.
const TLS_STALLERS: usize = 200;
/// Clients that send mail data octet by octet.
const DATA_DRIBBLERS: usize = 100;
/// Connections of one address.
const PER_ADDRESS: usize = 80;
/// Logins that are under way at once while the crowd comes in.
const AT_ONCE: usize = 24;
/// Time between two octets of a dribbler.
const DRIBBLE: Duration = Duration::from_millis(500);
/// When the relay has had enough of a slow one.
const CUT_OFF: Duration = Duration::from_secs(15);
/// Visits of the good client to the quiet and to the crowded relay.
const VISITS: usize = 15;
/// User memory of an idle connection, also in a build without optimisation.
const MOST_KIB: f64 = 16.0;

const LIMITS: &str = r"[limits]
connections = 4000
connections_per_ip = 100
connections_per_tenant = 4000
command_seconds_unauthenticated = 15
handshake_seconds = 15
data_seconds = 15
";

/// The `number`th client's address in its part of the crowd.
fn address(part: u8, number: usize) -> Ipv4Addr {
    Ipv4Addr::new(127, part, u8::try_from(number / PER_ADDRESS).unwrap(), 1)
}

/// A whole visit of a good client, from TCP to its message's 250.
async fn visit(relay: SocketAddr, tls: &Arc<ClientConfig>) -> Duration {
    let began = Instant::now();
    let mut client = Caller::login(relay, address(3, 0), tls).await.unwrap();
    let reply = client.send("someone@dest.example", "hello").await.unwrap();
    assert_eq!(code(&reply), 250, "{reply}");
    let took = began.elapsed();
    assert_eq!(code(&client.say("QUIT").await.unwrap()), 221);
    took
}

/// Several visits, one after the other: the median and the longest.
async fn visits(relay: SocketAddr, tls: &Arc<ClientConfig>) -> (Duration, Duration) {
    let mut times = Vec::new();
    for _ in 0..VISITS {
        times.push(visit(relay, tls).await);
    }
    times.sort();
    (times[VISITS / 2], times[VISITS - 1])
}

/// Waits until this many sessions are open, and gives how many are. One counts from its client's first octet
/// on, which may still be on its way when the client has read the greeting.
async fn sessions_open(place: &Place, least: usize) -> usize {
    let status = place.ask(&["status"]).await;
    let admin = status["admin"].as_str().unwrap();
    let look = async {
        loop {
            let (_, metrics) = get(admin, "/metrics").await;
            let line = metrics.lines().find(|line| line.starts_with("bulkhead_sessions_open ")).unwrap();
            let open = line.rsplit(' ').next().unwrap().parse().unwrap();
            if open >= least {
                return open;
            }
        }
    };
    soon("the crowd's first octets", look).await
}

/// How a slow client ended: what it heard, and after how long.
type End = (String, Duration);

/// Sends octets one by one until a reply or the end comes.
async fn dribble(mut client: Caller, octets: impl Iterator<Item = u8>) -> End {
    let began = Instant::now();
    for octet in octets {
        if client.write(&[octet]).await.is_err() {
            break;
        }
        if let Ok(reply) = timeout(DRIBBLE, client.reply()).await {
            return (reply.unwrap_or_default(), began.elapsed());
        }
    }
    ("never cut off".into(), began.elapsed())
}

async fn dribble_command(relay: SocketAddr, from: Ipv4Addr, ready: Arc<Semaphore>) -> End {
    let client = Caller::plain(relay, from).await.unwrap();
    ready.add_permits(1);
    dribble(client, b"NOOP ".iter().copied().chain(std::iter::repeat_n(b'x', 100))).await
}

async fn dribble_data(relay: SocketAddr, from: Ipv4Addr, tls: Arc<ClientConfig>, ready: Arc<Semaphore>) -> End {
    let mut client = Caller::login(relay, from, &tls).await.unwrap();
    client.begin("someone@dest.example").await.unwrap();
    ready.add_permits(1);
    dribble(client, b"Subject: ".iter().copied().chain(std::iter::repeat_n(b'x', 100))).await
}

async fn stall_handshake(relay: SocketAddr, from: Ipv4Addr, ready: Arc<Semaphore>) -> End {
    let mut socket = starting_tls(relay, from).await.unwrap();
    let began = Instant::now();
    // The head of a ClientHello of 512 octets, and no more.
    socket.write_all(&[0x16, 3, 1, 2, 0, 1, 0, 1, 0xfc, 3, 3]).await.unwrap();
    ready.add_permits(1);
    let mut heard = Vec::new();
    let ended: io::Result<usize> = soon("the end of a handshake", socket.read_to_end(&mut heard)).await;
    // Nothing can be said to it but a reset or an end.
    let _ = ended;
    (String::from_utf8_lossy(&heard).into_owned(), began.elapsed())
}

#[tokio::test(flavor = "multi_thread")]
async fn a_good_client_does_not_wait_for_a_crowd() {
    rlimit::increase_nofile_limit(8192).unwrap();
    let aws = Aws::start().await;
    let place = aws.place(LIMITS);
    let process = place.start().await;
    let relay = process.listener("starttls").await;
    let tls = place.tls();

    // The quiet relay; these visits also warm up what is made once.
    let quiet = visits(relay, &tls).await;
    let before = process.memory();

    let began = Instant::now();
    let mut idle = crowd_in(relay, &tls).await;
    let came_in = began.elapsed();
    let after = process.memory();
    let each = (after as f64 - before as f64) / IDLE as f64;
    println!(
        "{IDLE} idle connections came in within {came_in:?}; {before} KiB before, {after} KiB after: {each:.1} KiB each"
    );
    let crowded = visits(relay, &tls).await;

    let slow = slow_crowd(relay, &tls).await;
    let open = sessions_open(&place, IDLE + COMMAND_DRIBBLERS + TLS_STALLERS + DATA_DRIBBLERS).await;
    let harassed = visits(relay, &tls).await;
    println!(
        "a visit (median, longest): quiet {quiet:?}, {IDLE} idle {crowded:?}, and {} slow {harassed:?}",
        open - IDLE
    );
    let standing = [&slow.commands, &slow.handshakes, &slow.data].map(|part| part.iter().all(|one| !one.is_finished()));
    assert_eq!(standing, [true; 3], "the crowd was gone before the good client");
    // Generous, for a machine that does other things too; a good client that waits for a slow one's
    // time-out waits for many seconds.
    for (median, longest) in [crowded, harassed] {
        assert!(median < quiet.0 * 5 + Duration::from_millis(200), "{median:?} instead of {:?}", quiet.0);
        assert!(longest < Duration::from_secs(3), "{longest:?}");
    }
    assert!(each <= MOST_KIB, "{each:.1} KiB for an idle connection");

    for (part, tasks, says) in [
        ("commands", slow.commands, "421 4.4.2 "),
        ("data", slow.data, "421 4.4.2 "),
        ("handshakes", slow.handshakes, ""),
    ] {
        let count = tasks.len();
        let mut times = Vec::new();
        for task in tasks {
            let (heard, after) = soon("the end of a slow one", task).await.unwrap();
            assert!(heard.starts_with(says) && (!says.is_empty() || heard.is_empty()), "{part}: {heard:?}");
            times.push(after);
        }
        times.sort();
        println!("{count} {part} cut off after {:?} to {:?}", times[0], times[count - 1]);
        // Their own wait begins a moment after the relay's.
        assert!(times[0] > CUT_OFF - Duration::from_secs(4) && times[count - 1] < CUT_OFF + Duration::from_secs(6));
    }

    // None of the quiet ones was sent away.
    for client in &mut idle {
        assert_eq!(code(&client.say("NOOP").await.unwrap()), 250);
    }
}

/// The idle clients, all logged in.
async fn crowd_in(relay: SocketAddr, tls: &Arc<ClientConfig>) -> Vec<Caller> {
    let turns = Arc::new(Semaphore::new(AT_ONCE));
    let mut coming = JoinSet::new();
    for number in 0..IDLE {
        let (turns, tls) = (Arc::clone(&turns), Arc::clone(tls));
        coming.spawn(async move {
            let _turn = turns.acquire_owned().await.unwrap();
            Caller::login(relay, address(1, number), &tls).await.unwrap()
        });
    }
    soon("the crowd", coming.join_all()).await
}

/// Those who hold up.
struct Slow {
    commands: Vec<JoinHandle<End>>,
    handshakes: Vec<JoinHandle<End>>,
    data: Vec<JoinHandle<End>>,
}

/// All of them, each where it means to stay.
async fn slow_crowd(relay: SocketAddr, tls: &Arc<ClientConfig>) -> Slow {
    let ready = Arc::new(Semaphore::new(0));
    let wait = async |many: usize| {
        soon("the slow ones", ready.acquire_many(u32::try_from(many).unwrap())).await.unwrap().forget();
    };
    let data = (0..DATA_DRIBBLERS)
        .map(|n| tokio::spawn(dribble_data(relay, address(2, n), Arc::clone(tls), Arc::clone(&ready))))
        .collect();
    wait(DATA_DRIBBLERS).await;
    let handshakes =
        (0..TLS_STALLERS).map(|n| tokio::spawn(stall_handshake(relay, address(4, n), Arc::clone(&ready)))).collect();
    wait(TLS_STALLERS).await;
    let commands = (0..COMMAND_DRIBBLERS)
        .map(|n| tokio::spawn(dribble_command(relay, address(5, n), Arc::clone(&ready))))
        .collect();
    wait(COMMAND_DRIBBLERS).await;
    Slow { commands, handshakes, data }
}
