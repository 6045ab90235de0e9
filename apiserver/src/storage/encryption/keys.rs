//! Encryption by keys that the configuration has.

use aes::{Aes128, Aes192, Aes256};
use aes_gcm::aead::{Aead, KeyInit, Payload};
use aes_gcm::{AesGcm, Nonce};
use cbc::cipher::block_padding::{NoPadding, Pkcs7};
use cbc::cipher::{BlockDecryptMut, BlockEncryptMut, KeyIvInit};
use crypto_secretbox::XSalsa20Poly1305;
use ring::rand::{SecureRandom, SystemRandom};

type U12 = aes_gcm::aead::consts::U12;

const TOO_SHORT: &str = "the stored data was shorter than the required size";
const BLOCK: usize = 16;
const GCM_NONCE: usize = 12;
const BOX_NONCE: usize = 24;
const BOX_TAG: usize = 16;

/// Bytes that nobody can foresee.
pub(super) fn random<const N: usize>() -> Result<[u8; N], String> {
    let mut bytes = [0; N];
    let filled = SystemRandom::new().fill(&mut bytes);
    filled.map_err(|_| "unable to read sufficient random bytes".to_owned())?;
    Ok(bytes)
}

/// AES in Galois/Counter Mode, by the length of the key.
pub(super) enum Gcm {
    Aes128(Box<AesGcm<Aes128, U12>>),
    Aes192(Box<AesGcm<Aes192, U12>>),
    Aes256(Box<AesGcm<Aes256, U12>>),
}

impl Gcm {
    /// None when the key has no length that AES knows.
    pub(super) fn new(key: &[u8]) -> Option<Self> {
        Some(match key.len() {
            16 => Gcm::Aes128(Box::new(AesGcm::new_from_slice(key).ok()?)),
            24 => Gcm::Aes192(Box::new(AesGcm::new_from_slice(key).ok()?)),
            32 => Gcm::Aes256(Box::new(AesGcm::new_from_slice(key).ok()?)),
            _ => return None,
        })
    }

    /// Decrypts what follows its nonce.
    pub(super) fn open(&self, bytes: &[u8], authenticated: &[u8]) -> Result<Vec<u8>, String> {
        let Some((nonce, bytes)) = bytes.split_at_checked(GCM_NONCE) else {
            return Err(TOO_SHORT.to_owned());
        };
        let (nonce, payload) = (Nonce::from_slice(nonce), Payload { msg: bytes, aad: authenticated });
        let opened = match self {
            Gcm::Aes128(cipher) => cipher.decrypt(nonce, payload),
            Gcm::Aes192(cipher) => cipher.decrypt(nonce, payload),
            Gcm::Aes256(cipher) => cipher.decrypt(nonce, payload),
        };
        opened.map_err(|_| "cipher: message authentication failed".to_owned())
    }

    /// Encrypts, with a nonce in front.
    pub(super) fn seal(&self, value: &[u8], authenticated: &[u8]) -> Result<Vec<u8>, String> {
        let nonce = random::<GCM_NONCE>()?;
        let (at, payload) = (Nonce::from_slice(&nonce), Payload { msg: value, aad: authenticated });
        let sealed = match self {
            Gcm::Aes128(cipher) => cipher.encrypt(at, payload),
            Gcm::Aes192(cipher) => cipher.encrypt(at, payload),
            Gcm::Aes256(cipher) => cipher.encrypt(at, payload),
        };
        Ok([&nonce[..], &sealed.map_err(|_| "the value is too large to be encrypted".to_owned())?].concat())
    }
}

/// A key.
pub(super) enum Key {
    /// AES in Cipher Block Chaining mode, with padding. It authenticates nothing.
    Cbc(Vec<u8>),
    /// AES in Galois/Counter Mode.
    Gcm(Gcm),
    /// XSalsa20 and Poly1305, as in NaCl. It authenticates the value, but not its place.
    Secretbox(Box<XSalsa20Poly1305>),
}

impl Key {
    pub(super) fn secretbox(key: &[u8]) -> Option<Self> {
        XSalsa20Poly1305::new_from_slice(key).ok().map(|cipher| Key::Secretbox(Box::new(cipher)))
    }

    /// Decrypts.
    pub(super) fn open(&self, bytes: &[u8], authenticated: &[u8]) -> Result<Vec<u8>, String> {
        match self {
            Key::Cbc(key) => open_cbc(key, bytes),
            Key::Gcm(cipher) => cipher.open(bytes, authenticated),
            Key::Secretbox(cipher) => {
                if bytes.len() < BOX_NONCE + BOX_TAG {
                    return Err(TOO_SHORT.to_owned());
                }
                let (nonce, bytes) = bytes.split_at(BOX_NONCE);
                let opened = cipher.decrypt(crypto_secretbox::Nonce::from_slice(nonce), bytes);
                // This is what upstream says whatever the cause.
                opened.map_err(|_| "output array was not large enough for encryption".to_owned())
            }
        }
    }

    /// Encrypts.
    pub(super) fn seal(&self, value: &[u8], authenticated: &[u8]) -> Result<Vec<u8>, String> {
        match self {
            Key::Cbc(key) => seal_cbc(key, value),
            Key::Gcm(cipher) => cipher.seal(value, authenticated),
            Key::Secretbox(cipher) => {
                let nonce = random::<BOX_NONCE>()?;
                let sealed = cipher.encrypt(crypto_secretbox::Nonce::from_slice(&nonce), value);
                Ok([&nonce[..], &sealed.map_err(|_| "the value is too large to be encrypted".to_owned())?]
                    .concat())
            }
        }
    }
}

const WRONG_KEY: &str = "the key has no length that AES knows";

fn open_cbc(key: &[u8], bytes: &[u8]) -> Result<Vec<u8>, String> {
    let Some((iv, bytes)) = bytes.split_at_checked(BLOCK) else { return Err(TOO_SHORT.to_owned()) };
    if !bytes.len().is_multiple_of(BLOCK) {
        return Err("the stored data is not a multiple of the block size".to_owned());
    }
    macro_rules! decrypted {
        ($cipher:ty) => {
            cbc::Decryptor::<$cipher>::new_from_slices(key, iv)
                .ok()
                .and_then(|d| d.decrypt_padded_vec_mut::<NoPadding>(bytes).ok())
        };
    }
    let value = match key.len() {
        16 => decrypted!(Aes128),
        24 => decrypted!(Aes192),
        _ => decrypted!(Aes256),
    };
    let mut value = value.ok_or(WRONG_KEY)?;
    // Which of the two is wrong is told as upstream tells it; whoever can write to etcd sees neither.
    let padding = usize::from(value.last().copied().unwrap_or(0));
    if padding == 0 || padding > value.len() {
        return Err("invalid PKCS7 data (empty or not padded)".to_owned());
    }
    let end = value.len() - padding;
    if value[end..].iter().any(|b| usize::from(*b) != padding) {
        return Err("invalid padding on input".to_owned());
    }
    value.truncate(end);
    Ok(value)
}

fn seal_cbc(key: &[u8], value: &[u8]) -> Result<Vec<u8>, String> {
    let iv = random::<BLOCK>()?;
    macro_rules! encrypted {
        ($cipher:ty) => {
            cbc::Encryptor::<$cipher>::new_from_slices(key, &iv)
                .ok()
                .map(|e| e.encrypt_padded_vec_mut::<Pkcs7>(value))
        };
    }
    let sealed = match key.len() {
        16 => encrypted!(Aes128),
        24 => encrypted!(Aes192),
        _ => encrypted!(Aes256),
    };
    Ok([&iv[..], &sealed.ok_or(WRONG_KEY)?].concat())
}

#[cfg(test)]
mod tests {
    use super::*;

    fn bytes(hex: &str) -> Vec<u8> {
        let digit = |i: usize| u8::from_str_radix(&hex[i..i + 2], 16).unwrap();
        (0..hex.len()).step_by(2).map(digit).collect()
    }

    #[test]
    fn values_come_back_whole() {
        let value = b"some value of no particular length";
        for length in [16, 24, 32] {
            let key = vec![7; length];
            for key in [Key::Cbc(key.clone()), Key::Gcm(Gcm::new(&key).unwrap())] {
                let sealed = key.seal(value, b"/registry/a").unwrap();
                assert_eq!(key.open(&sealed, b"/registry/a").unwrap(), value, "{length}");
                assert_ne!(sealed, key.seal(value, b"/registry/a").unwrap());
                assert_eq!(key.open(&sealed[..9], b"/registry/a").unwrap_err(), TOO_SHORT);
            }
        }
        assert!(Gcm::new(&[0; 20]).is_none());
    }

    #[test]
    fn boxes_are_those_of_nacl() {
        // From the tests of golang.org/x/crypto/nacl/secretbox.
        let key = Key::secretbox(&[1; 32]).unwrap();
        let sealed = bytes(
            "8442bc313f4626f1359e3b50122b6ce6fe66ddfe7d39d14e637eb4fd5b45beadab55198df6ab5368439792a23c87db70acb6156dc5ef957ac04f6276cf6093b84be77ff0849cc33e34b7254d5a8f65ad",
        );
        let stored = [&[2; BOX_NONCE][..], &sealed].concat();
        assert_eq!(key.open(&stored, b"").unwrap(), [3; 64]);
        let wrong = "output array was not large enough for encryption";
        assert_eq!(Key::secretbox(&[9; 32]).unwrap().open(&stored, b"").unwrap_err(), wrong);
    }

    #[test]
    fn gcm_is_that_of_others() {
        use ring::aead::{AES_256_GCM, Aad, LessSafeKey, Nonce, UnboundKey};
        let key = Key::Gcm(Gcm::new(&[5; 32]).unwrap());
        let mut sealed = key.seal(b"value", b"place").unwrap();
        let (nonce, rest) = sealed.split_at_mut(GCM_NONCE);
        let other = LessSafeKey::new(UnboundKey::new(&AES_256_GCM, &[5; 32]).unwrap());
        let nonce = Nonce::try_assume_unique_for_key(nonce).unwrap();
        assert_eq!(other.open_in_place(nonce, Aad::from(b"place"), rest).unwrap(), b"value");
    }

    #[test]
    fn broken_padding_is_told_apart() {
        let key = vec![7; 16];
        let sealed = seal_cbc(&key, &[b'x'; 20]).unwrap();
        assert!(open_cbc(&key, &sealed[..30]).unwrap_err().contains("multiple of the block size"));
        assert_eq!(open_cbc(&key, &sealed[..16]).unwrap_err(), "invalid PKCS7 data (empty or not padded)");
        // Without its last block the value ends in an x, which is more than there is.
        assert_eq!(open_cbc(&key, &sealed[..32]).unwrap_err(), "invalid PKCS7 data (empty or not padded)");
    }
}
