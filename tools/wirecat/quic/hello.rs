//! The little of TLS 1.3 that a listener needs (RFC 8446 §4): what names a connection in a key
//! log, what it agreed on, and the server's stateless reset token.

use super::bytes::Bytes;

/// What a ClientHello says.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct ClientHello {
    /// Names the connection in a key log.
    pub random: [u8; 32],
    /// The protocols that the client offers, as they stand.
    pub protocols: Vec<Vec<u8>>,
}

/// What a ServerHello says: the number of the cipher suite.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct ServerHello(pub u16);

/// Kinds of handshake messages.
const CLIENT_HELLO: u8 = 1;
const SERVER_HELLO: u8 = 2;
const ENCRYPTED_EXTENSIONS: u8 = 8;

/// Kinds of extensions: protocols (RFC 7301) and QUIC's parameters (RFC 9001 §8.2).
const ALPN: u64 = 16;
const TRANSPORT_PARAMETERS: u64 = 0x39;

/// The parameter that holds a token (RFC 9000 §18.2).
const STATELESS_RESET_TOKEN: u64 = 2;

/// The ClientHello at the front of these bytes, if it is whole.
pub fn client_hello(bytes: &[u8]) -> Option<ClientHello> {
    let mut body = message(bytes, CLIENT_HELLO)?;
    body.take(2)?;
    let random = body.take(32)?.try_into().ok()?;
    body.vector(1)?; // session
    body.vector(2)?; // suites
    body.vector(1)?; // compressions
    let protocols = extension(body.vector(2)?, ALPN).map(protocols).unwrap_or_default();
    Some(ClientHello { random, protocols })
}

/// The ServerHello at the front of these bytes, if it is whole.
pub fn server_hello(bytes: &[u8]) -> Option<ServerHello> {
    let mut body = message(bytes, SERVER_HELLO)?;
    body.take(2 + 32)?;
    body.vector(1)?; // session
    Some(ServerHello(body.number(2)? as u16)) // fits: two bytes
}

/// The reset token in the EncryptedExtensions at the front of these bytes.
pub fn reset_token(bytes: &[u8]) -> Option<[u8; 16]> {
    let mut body = message(bytes, ENCRYPTED_EXTENSIONS)?;
    let mut parameters = Bytes::new(extension(body.vector(2)?, TRANSPORT_PARAMETERS)?);
    while !parameters.is_empty() {
        let (number, value) = (parameters.varint()?, parameters.counted()?);
        if number == STATELESS_RESET_TOKEN {
            return value.try_into().ok();
        }
    }
    None
}

fn message(bytes: &[u8], kind: u8) -> Option<Bytes<'_>> {
    let mut bytes = Bytes::new(bytes);
    (bytes.byte()? == kind).then(|| bytes.vector(3).map(Bytes::new))?
}

fn extension(extensions: &[u8], kind: u64) -> Option<&[u8]> {
    let mut extensions = Bytes::new(extensions);
    while !extensions.is_empty() {
        let (number, value) = (extensions.number(2)?, extensions.vector(2)?);
        if number == kind {
            return Some(value);
        }
    }
    None
}

fn protocols(list: &[u8]) -> Vec<Vec<u8>> {
    let mut list = Bytes::new(list);
    let mut names = Bytes::new(list.vector(2).unwrap_or_default());
    std::iter::from_fn(|| names.vector(1).map(<[u8]>::to_vec)).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn framed(kind: u8, body: &[u8]) -> Vec<u8> {
        [&[kind, 0, 0, body.len() as u8][..], body].concat()
    }

    #[test]
    fn a_hello_is_read_when_it_is_whole() {
        let extensions = [0, 1, 0, 1, 9, 0, 16, 0, 9, 0, 7, 6, b't', b'e', b'r', b'n', b'/', b'1'];
        let mut body = vec![3, 3];
        body.extend([7; 32]);
        body.extend([0, 0, 2, 0x13, 1, 1, 0, 0, extensions.len() as u8]);
        body.extend(extensions);
        let hello = framed(1, &body);
        let read = client_hello(&hello).unwrap();
        assert_eq!((read.random, read.protocols), ([7; 32], vec![b"tern/1".to_vec()]));
        assert!((0..hello.len()).all(|cut| client_hello(&hello[..cut]).is_none()));
        let mut body = vec![3, 3];
        body.extend([7; 32]);
        body.extend([0, 0x13, 3, 0, 0, 0]);
        assert_eq!(server_hello(&framed(2, &body)), Some(ServerHello(0x1303)));
    }

    #[test]
    fn a_token_is_found_among_the_parameters() {
        let mut parameters = vec![1, 1, 5, 2, 16];
        parameters.extend([9; 16]);
        let mut body = vec![0, 25, 0, 0x39, 0, 21];
        body.extend(&parameters);
        assert_eq!(reset_token(&framed(8, &body)), Some([9; 16]));
    }
}
