package coterie.interop;

import com.google.gson.JsonElement;
import com.google.gson.JsonObject;
import com.google.gson.JsonParser;
import java.io.BufferedReader;
import java.io.InputStreamReader;
import java.nio.charset.StandardCharsets;
import java.util.ArrayList;
import java.util.HashMap;
import java.util.List;
import java.util.Map;
import org.bouncycastle.crypto.AsymmetricCipherKeyPair;
import org.bouncycastle.mls.TreeKEM.LeafNode;
import org.bouncycastle.mls.TreeKEM.LifeTime;
import org.bouncycastle.mls.TreeKEM.TreeKEMPublicKey;
import org.bouncycastle.mls.codec.Capabilities;
import org.bouncycastle.mls.codec.Credential;
import org.bouncycastle.mls.codec.Extension;
import org.bouncycastle.mls.codec.KeyPackage;
import org.bouncycastle.mls.codec.MLSInputStream;
import org.bouncycastle.mls.codec.MLSMessage;
import org.bouncycastle.mls.codec.WireFormat;
import org.bouncycastle.mls.crypto.MlsCipherSuite;
import org.bouncycastle.mls.crypto.Secret;
import org.bouncycastle.mls.protocol.Group;
import org.bouncycastle.util.encoders.Hex;

/**
 * Plays test vectors through Bouncy Castle: JSON lines in, JSON lines out, without gRPC.
 *
 * <p>{@code interop/peers/README.md} has the fields of a line.
 */
final class Replay {
    private MlsCipherSuite suite;
    private Map<Secret, byte[]> psks = new HashMap<>();
    private Group group;

    /** Answers line by line until the input ends. */
    static void run() throws Exception {
        Replay client = new Replay();
        InputStreamReader input = new InputStreamReader(System.in, StandardCharsets.UTF_8);
        BufferedReader lines = new BufferedReader(input);
        for (String line = lines.readLine(); line != null; line = lines.readLine()) {
            System.out.println(client.outcome(JsonParser.parseString(line).getAsJsonObject()));
        }
    }

    private JsonObject outcome(JsonObject line) {
        JsonObject answer = new JsonObject();
        try {
            answer.addProperty("ok", Hex.toHexString(done(line)));
        } catch (Lacking lacking) {
            answer.addProperty("lacking", lacking.getMessage());
        } catch (Throwable refusal) {
            String words = refusal.toString();
            String lacking = BouncyCastlePeer.unknownExtension(words);
            answer.addProperty(lacking == null ? "refused" : "lacking", lacking == null ? words : lacking);
        }
        return answer;
    }

    private byte[] done(JsonObject line) throws Exception {
        switch (line.get("do").getAsString()) {
            case "begin":
                begin(line);
                return new byte[0];
            case "join":
                return join(line);
            case "join_external":
                return joinExternal(line);
            case "receive":
                return receive(bytes(line, "message"));
            default:
                throw new IllegalArgumentException("there is no such thing to do");
        }
    }

    private void begin(JsonObject line) throws Exception {
        group = null;
        suite = MlsCipherSuite.getSuite(line.get("cipher_suite").getAsShort());
        psks = new HashMap<>();
        for (JsonElement each : line.getAsJsonArray("external_psks")) {
            JsonObject psk = each.getAsJsonObject();
            psks.put(new Secret(bytes(psk, "psk_id")), bytes(psk, "psk"));
        }
    }

    private byte[] join(JsonObject line) throws Exception {
        if (line.get("continues").getAsInt() == 1) {
            throw new Lacking("Bouncy Castle joins successors and branches with keys of its own only");
        }
        KeyPackage keyPackage = message(line, "key_package").keyPackage;
        byte[] leafKey = keyPackage.getLeafNode().getEncryptionKey();
        group =
                new Group(
                        bytes(line, "init_priv"),
                        suite.getHPKE().deserializePrivateKey(bytes(line, "encryption_priv"), leafKey),
                        bytes(line, "signature_priv"),
                        keyPackage,
                        message(line, "welcome").welcome,
                        tree(line),
                        psks,
                        new HashMap<>());
        return group.getEpochAuthenticator();
    }

    private byte[] joinExternal(JsonObject line) throws Exception {
        AsymmetricCipherKeyPair init = suite.getHPKE().generatePrivateKey();
        AsymmetricCipherKeyPair leaf = suite.getHPKE().generatePrivateKey();
        byte[] signatureKey = bytes(line, "signature_priv");
        LeafNode leafNode =
                new LeafNode(
                        suite,
                        suite.getHPKE().serializePublicKey(leaf.getPublic()),
                        bytes(line, "signature_pub"),
                        Credential.forBasic(bytes(line, "identity")),
                        new Capabilities(),
                        new LifeTime(),
                        new ArrayList<Extension>(),
                        signatureKey);
        byte[] initKey = suite.getHPKE().serializePublicKey(init.getPublic());
        List<Extension> none = new ArrayList<>();
        KeyPackage keyPackage = new KeyPackage(suite, initKey, leafNode, none, signatureKey);
        Group.GroupWithMessage joined =
                Group.externalJoin(
                        new Secret(new byte[suite.getKDF().getHashLength()]),
                        suite.deserializeSignaturePrivateKey(signatureKey),
                        keyPackage,
                        message(line, "group_info").groupInfo,
                        tree(line),
                        new Group.MessageOptions(false, new byte[0], 0),
                        null,
                        psks);
        group = joined.group;
        return group.getEpochAuthenticator();
    }

    private byte[] receive(byte[] data) throws Exception {
        MLSMessage message = (MLSMessage) MLSInputStream.decode(data, MLSMessage.class);
        if (message.wireFormat == WireFormat.mls_private_message && isApplication(data)) {
            group.unprotect(message);
        } else {
            Group next = group.handle(data, null);
            group = next == null ? group : next;
        }
        return group.getEpochAuthenticator();
    }

    /** The library keeps a PrivateMessage's content type to itself; it stands behind group id and epoch. */
    private static boolean isApplication(byte[] data) {
        int head = 4;
        int length = data[head] & 0x3f;
        if ((data[head] & 0xc0) != 0) {
            length = length << 8 | data[++head] & 0xff;
        }
        return data[head + 1 + length + 8] == 1;
    }

    private TreeKEMPublicKey tree(JsonObject line) throws Exception {
        byte[] data = bytes(line, "ratchet_tree");
        if (data.length == 0) {
            return null;
        }
        TreeKEMPublicKey tree = (TreeKEMPublicKey) MLSInputStream.decode(data, TreeKEMPublicKey.class);
        tree.setSuite(suite);
        return tree;
    }

    private static MLSMessage message(JsonObject line, String name) throws Exception {
        return (MLSMessage) MLSInputStream.decode(bytes(line, name), MLSMessage.class);
    }

    private static byte[] bytes(JsonObject line, String name) {
        return Hex.decode(line.get(name).getAsString());
    }

    /** The library lacks what a line asks for. */
    private static final class Lacking extends Exception {
        private static final long serialVersionUID = 1L;

        Lacking(String reason) {
            super(reason);
        }
    }
}
