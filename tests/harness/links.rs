//! The proxy and the network namespace do to a connection what they are told to.

use std::io::{self, Read as _, Write as _};
use std::net::{Ipv4Addr, TcpListener, TcpStream};
use std::thread;
use std::time::{Duration, Instant};

use crate::support::daemon::PATIENCE;
use crate::support::weather::Trouble;
use crate::support::{Network, Proxy, Weather};

/// A server that answers every 100 bytes with 100 bytes, until the process ends.
fn echo() -> u16 {
    let listener = TcpListener::bind((Ipv4Addr::LOCALHOST, 0)).expect("some port is free");
    let port = listener.local_addr().expect("a bound socket has one").port();
    thread::spawn(move || {
        for mut connection in listener.incoming().map_while(Result::ok) {
            thread::spawn(move || {
                let mut bytes = [0; 100];
                while connection.read_exact(&mut bytes).is_ok() && connection.write_all(&bytes).is_ok() {}
            });
        }
    });
    port
}

/// 100 bytes there and back; how long that took.
fn ask(connection: &mut TcpStream) -> io::Result<Duration> {
    let begun = Instant::now();
    connection.write_all(&[7; 100])?;
    let mut answer = [0; 100];
    connection.read_exact(&mut answer)?;
    assert_eq!(answer, [7; 100]);
    Ok(begun.elapsed())
}

fn connect(proxy: &Proxy) -> TcpStream {
    let connection = TcpStream::connect(proxy.address()).expect("the proxy listens");
    connection.set_read_timeout(Some(PATIENCE)).expect("a duration above zero");
    connection
}

#[test]
fn weather_makes_everything_slower() {
    let proxy = Proxy::start(Ipv4Addr::LOCALHOST, echo());
    let mut connection = connect(&proxy);
    ask(&mut connection).unwrap();
    // Twice as long there and back.
    proxy.set(Weather { delay: Duration::from_millis(150), ..Weather::fine() });
    assert!(ask(&mut connection).unwrap() >= Duration::from_millis(300));
    // Each way has the line for itself.
    proxy.set(Weather { bits_per_second: Some(4000), ..Weather::fine() });
    assert!(ask(&mut connection).unwrap() >= Duration::from_millis(400));
    // Of twenty questions and answers, one gets lost and is sent again.
    proxy.set(Weather { loss: 0.5, ..Weather::fine() });
    assert!((0..20).any(|_| ask(&mut connection).unwrap() >= Duration::from_millis(200)), "nothing was lost");
}

#[test]
fn trouble_comes_and_goes() {
    let proxy = Proxy::start(Ipv4Addr::LOCALHOST, echo());
    let silence = |connection: &mut TcpStream| {
        connection.set_read_timeout(Some(Duration::from_millis(300))).unwrap();
        ask(connection).unwrap_err().kind()
    };
    ask(&mut connect(&proxy)).unwrap();

    proxy.set(Weather::with(Trouble::Resets));
    assert_eq!(ask(&mut connect(&proxy)).unwrap_err().kind(), io::ErrorKind::ConnectionReset);
    proxy.set(Weather::with(Trouble::Swallows));
    assert_eq!(silence(&mut connect(&proxy)), io::ErrorKind::WouldBlock);
    proxy.set(Weather::with(Trouble::HalfCloses));
    assert_eq!(ask(&mut connect(&proxy)).unwrap_err().kind(), io::ErrorKind::UnexpectedEof);
    proxy.set(Weather::with(Trouble::ResetsInAnswers(60)));
    let mut cut = connect(&proxy);
    cut.write_all(&[7; 100]).unwrap();
    let mut answer = Vec::new();
    assert_eq!(cut.read_to_end(&mut answer).unwrap_err().kind(), io::ErrorKind::ConnectionReset);
    assert_eq!(answer.len(), 60);

    proxy.set(Weather::fine());
    let mut connection = connect(&proxy);
    ask(&mut connection).unwrap();
    proxy.cut();
    assert!(ask(&mut connection).is_err());
    ask(&mut connect(&proxy)).unwrap();
}

#[test]
fn a_network_of_its_own_reaches_this_machine_until_it_is_unplugged() {
    let network = Network::new();
    let proxy = Proxy::start(network.outside(), echo());
    let port = proxy.address().port();
    network.name("server.example");
    let names = |name: &str| {
        let mut look_up = std::process::Command::new(&network.enter()[0]);
        look_up.args(&network.enter()[1..]).args(["getent", "hosts", name]);
        look_up.output().unwrap().status.success()
    };
    assert!(names("server.example"));
    network.forget_names();
    assert!(!names("server.example"));
    network.inside(|| {
        ask(&mut connect(&proxy)).unwrap();
        let reach = || TcpStream::connect_timeout(&(network.outside(), port).into(), Duration::from_millis(500));
        network.interface_down();
        assert_eq!(reach().unwrap_err().kind(), io::ErrorKind::NetworkUnreachable);
        network.interface_up();
        ask(&mut connect(&proxy)).unwrap();
        network.unplug();
        assert!(reach().is_err());
        network.plug();
        ask(&mut connect(&proxy)).unwrap();
        network.shape("tbf rate 32kbit burst 2kb latency 10s");
        let begun = Instant::now();
        let mut connection = connect(&proxy);
        connection.write_all(&[7; 8000]).unwrap();
        connection.read_exact(&mut [0; 8000]).unwrap();
        assert!(begun.elapsed() >= Duration::from_secs(1), "6000 bytes wait for the bucket to fill");
        network.unshape();
        ask(&mut connect(&proxy)).unwrap();
    });
}
