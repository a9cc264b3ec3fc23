//! Public and private keys.

use ed25519_dalek::pkcs8::{DecodePrivateKey, DecodePublicKey};
use ed25519_dalek::{Signer, Verifier};

use crate::provenance::attestation::problem::SigningError;

pub(super) enum PublicKey {
    Ed25519(ed25519_dalek::VerifyingKey),
    P256(p256::ecdsa::VerifyingKey),
}

impl PublicKey {
    pub(super) fn read(pem: &str) -> Option<Self> {
        let pem = pem.trim();
        ed25519_dalek::VerifyingKey::from_public_key_pem(pem)
            .map(Self::Ed25519)
            .or_else(|_| p256::ecdsa::VerifyingKey::from_public_key_pem(pem).map(Self::P256))
            .ok()
    }

    /// ECDSA signatures are in DER, as every DSSE signer writes them.
    pub(super) fn has_signed(&self, message: &[u8], signature: &[u8]) -> bool {
        match self {
            Self::Ed25519(key) => ed25519_dalek::Signature::from_slice(signature)
                .is_ok_and(|signature| key.verify_strict(message, &signature).is_ok()),
            Self::P256(key) => p256::ecdsa::DerSignature::from_bytes(signature)
                .is_ok_and(|signature| key.verify(message, &signature).is_ok()),
        }
    }
}

/// Whether a text is a public key that a policy can name.
#[must_use]
pub fn is_public_key(pem: &str) -> bool {
    PublicKey::read(pem).is_some()
}

pub(super) enum PrivateKey {
    Ed25519(ed25519_dalek::SigningKey),
    P256(p256::ecdsa::SigningKey),
}

impl PrivateKey {
    pub(super) fn read(pem: &str) -> Result<Self, SigningError> {
        let pem = pem.trim();
        ed25519_dalek::SigningKey::from_pkcs8_pem(pem)
            .map(Self::Ed25519)
            .or_else(|_| p256::ecdsa::SigningKey::from_pkcs8_pem(pem).map(Self::P256))
            .map_err(|_| SigningError::UnreadableKey)
    }

    pub(super) fn sign(&self, message: &[u8]) -> Vec<u8> {
        match self {
            Self::Ed25519(key) => key.sign(message).to_bytes().to_vec(),
            Self::P256(key) => {
                let signature: p256::ecdsa::DerSignature = key.sign(message);
                signature.as_bytes().to_vec()
            }
        }
    }
}

/// The public key, in PEM as a policy names it, of a private key in PKCS#8 PEM.
#[cfg(test)]
pub(crate) fn public_key_pem(private_key_pem: &str) -> Result<String, SigningError> {
    use ed25519_dalek::pkcs8::EncodePublicKey;
    use ed25519_dalek::pkcs8::spki::der::pem::LineEnding;

    let pem = match PrivateKey::read(private_key_pem)? {
        PrivateKey::Ed25519(key) => key.verifying_key().to_public_key_pem(LineEnding::LF),
        PrivateKey::P256(key) => key.verifying_key().to_public_key_pem(LineEnding::LF),
    };
    pem.map_err(|_| SigningError::UnreadableKey)
}
