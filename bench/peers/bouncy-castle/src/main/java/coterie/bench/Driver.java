package coterie.bench;

import com.google.gson.JsonArray;
import com.google.gson.JsonElement;
import com.google.gson.JsonNull;
import com.google.gson.JsonObject;
import com.google.gson.JsonParser;
import java.io.BufferedReader;
import java.io.InputStreamReader;
import java.lang.management.ManagementFactory;
import java.lang.management.ThreadMXBean;
import java.nio.charset.StandardCharsets;
import java.security.SecureRandom;
import java.util.ArrayList;
import java.util.Arrays;
import java.util.Base64;
import java.util.HashMap;
import java.util.List;
import java.util.Map;
import java.util.concurrent.Callable;
import org.bouncycastle.crypto.AsymmetricCipherKeyPair;
import org.bouncycastle.mls.TreeKEM.LeafIndex;
import org.bouncycastle.mls.TreeKEM.LeafNode;
import org.bouncycastle.mls.TreeKEM.LifeTime;
import org.bouncycastle.mls.TreeKEM.TreeKEMPublicKey;
import org.bouncycastle.mls.codec.Capabilities;
import org.bouncycastle.mls.codec.Credential;
import org.bouncycastle.mls.codec.KeyPackage;
import org.bouncycastle.mls.codec.MLSInputStream;
import org.bouncycastle.mls.codec.MLSMessage;
import org.bouncycastle.mls.codec.MLSOutputStream;
import org.bouncycastle.mls.codec.Proposal;
import org.bouncycastle.mls.codec.WireFormat;
import org.bouncycastle.mls.crypto.MlsCipherSuite;
import org.bouncycastle.mls.crypto.Secret;
import org.bouncycastle.mls.protocol.Group;

/** The benchmark driver of Bouncy Castle; requests and answers by line (see ../README.md). */
public final class Driver {
    private static final byte[] NOTHING = {};
    private static final int CALLS = 200;
    private static final SecureRandom RANDOM = new SecureRandom();

    private final Map<String, Member> members = new HashMap<>();
    private MlsCipherSuite suite;

    /** A client with the private halves of its key package and, once it is in it, its group. */
    private static final class Member {
        final AsymmetricCipherKeyPair init;
        final AsymmetricCipherKeyPair encryption;
        final byte[] signature;
        final LeafNode leaf;
        final KeyPackage keyPackage;
        Group group;

        Member(MlsCipherSuite suite, String name) throws Exception {
            init = suite.getHPKE().generatePrivateKey();
            encryption = suite.getHPKE().generatePrivateKey();
            AsymmetricCipherKeyPair keys = suite.generateSignatureKeyPair();
            signature = suite.serializeSignaturePrivateKey(keys.getPrivate());
            leaf =
                    new LeafNode(
                            suite,
                            suite.getHPKE().serializePublicKey(encryption.getPublic()),
                            suite.serializeSignaturePublicKey(keys.getPublic()),
                            Credential.forBasic(name.getBytes(StandardCharsets.UTF_8)),
                            new Capabilities(),
                            new LifeTime(),
                            new ArrayList<>(),
                            signature);
            byte[] initKey = suite.getHPKE().serializePublicKey(init.getPublic());
            keyPackage = new KeyPackage(suite, initKey, leaf, new ArrayList<>(), signature);
        }
    }

    /**
     * Nanoseconds by the clock and of the processor. The time of the process is only known in steps of 10 ms, so it is
     * that of this thread: the library has no other; the collector and the compiler are left out.
     */
    private static final class Clock {
        private static final ThreadMXBean THREADS = ManagementFactory.getThreadMXBean();
        private final JsonArray wall = new JsonArray();
        private final JsonArray cpu = new JsonArray();

        <T> T run(Callable<T> work) throws Exception {
            long wallStart = System.nanoTime();
            long cpuStart = THREADS.getCurrentThreadCpuTime();
            T result = work.call();
            cpu.add(THREADS.getCurrentThreadCpuTime() - cpuStart);
            wall.add(System.nanoTime() - wallStart);
            return result;
        }

        JsonObject answer() {
            JsonObject answer = new JsonObject();
            answer.add("wall", wall);
            answer.add("cpu", cpu);
            return answer;
        }
    }

    private static final class Lacking extends Exception {
        Lacking(String words) {
            super(words);
        }
    }

    private static byte[] bytes(JsonElement element) {
        return Base64.getDecoder().decode(element.getAsString());
    }

    private static String text(byte[] data) {
        return Base64.getEncoder().encodeToString(data);
    }

    private static List<byte[]> list(JsonElement element) {
        List<byte[]> items = new ArrayList<>();
        element.getAsJsonArray().forEach(item -> items.add(bytes(item)));
        return items;
    }

    private static MLSMessage message(byte[] data) throws Exception {
        return (MLSMessage) MLSInputStream.decode(data, MLSMessage.class);
    }

    private Member member(JsonObject request) {
        return members.get(request.get("member").getAsString());
    }

    private Member newMember(JsonObject request) throws Exception {
        String name = request.get("member").getAsString();
        Member member = new Member(suite, name);
        members.put(name, member);
        return member;
    }

    private JsonObject open(JsonObject request) throws Exception {
        suite = MlsCipherSuite.getSuite(request.get("suite").getAsShort());
        JsonObject answer = new JsonObject();
        answer.addProperty("version", "bcmls 1.84, Java " + Runtime.version());
        return answer;
    }

    private static byte[] sevens(int length) {
        byte[] data = new byte[length];
        Arrays.fill(data, (byte) 7);
        return data;
    }

    /** One call's nanoseconds of the processor, once it is compiled. */
    private static double price(Callable<?> call) throws Exception {
        for (int i = 0; i < 2 * CALLS; i++) {
            call.call();
        }
        Clock clock = new Clock();
        clock.run(
                () -> {
                    for (int i = 0; i < CALLS; i++) {
                        call.call();
                    }
                    return null;
                });
        return clock.cpu.get(0).getAsDouble() / CALLS;
    }

    private JsonObject primitives() throws Exception {
        byte[] content = sevens(300);
        byte[] info = sevens(150);
        byte[] secret = sevens(32);
        AsymmetricCipherKeyPair keys = suite.generateSignatureKeyPair();
        byte[] signing = suite.serializeSignaturePrivateKey(keys.getPrivate());
        byte[] verifying = suite.serializeSignaturePublicKey(keys.getPublic());
        byte[] signed = suite.signWithLabel(signing, "Bench", content);
        AsymmetricCipherKeyPair pair = suite.getHPKE().deriveKeyPair(secret);
        byte[] to = suite.getHPKE().serializePublicKey(pair.getPublic());
        byte[] own = suite.getHPKE().serializePrivateKey(pair.getPrivate());
        byte[][] sealed = suite.encryptWithLabel(to, "Bench", info, secret);
        JsonObject prices = new JsonObject();
        prices.addProperty("sign", price(() -> suite.signWithLabel(signing, "Bench", content)));
        prices.addProperty(
                "verify", price(() -> suite.verifyWithLabel(verifying, "Bench", content, signed)));
        prices.addProperty("seal", price(() -> suite.encryptWithLabel(to, "Bench", info, secret)));
        prices.addProperty(
                "open",
                price(() -> suite.decryptWithLabel(own, "Bench", info, sealed[1], sealed[0])));
        JsonObject answer = new JsonObject();
        answer.add("prices", prices);
        return answer;
    }

    private JsonObject keyPackage(JsonObject request) throws Exception {
        MLSMessage message = MLSMessage.keyPackage(newMember(request).keyPackage);
        JsonObject answer = new JsonObject();
        answer.addProperty("package", text(MLSOutputStream.encode(message)));
        return answer;
    }

    private JsonObject create(JsonObject request) throws Exception {
        Member member = newMember(request);
        byte[] id = new byte[16];
        RANDOM.nextBytes(id);
        LeafNode leaf = member.leaf.copy(member.leaf.getEncryptionKey());
        member.group =
                new Group(id, suite, member.encryption, member.signature, leaf, new ArrayList<>());
        return new JsonObject();
    }

    private JsonObject join(JsonObject request) throws Exception {
        Member member = member(request);
        byte[] welcome = bytes(request.get("welcome"));
        JsonElement beside = request.get("tree");
        byte[] encoded = beside.isJsonNull() ? null : bytes(beside);
        byte[] init = suite.getHPKE().serializePrivateKey(member.init.getPrivate());
        Clock clock = new Clock();
        member.group =
                clock.run(
                        () -> {
                            TreeKEMPublicKey tree = null;
                            if (encoded != null) {
                                tree = (TreeKEMPublicKey) MLSInputStream.decode(encoded, TreeKEMPublicKey.class);
                                tree.setSuite(suite);
                            }
                            return new Group(
                                    init,
                                    member.encryption,
                                    member.signature,
                                    member.keyPackage,
                                    message(welcome).welcome,
                                    tree,
                                    new HashMap<>(),
                                    new HashMap<>());
                        });
        return clock.answer();
    }

    private JsonObject commit(JsonObject request) throws Exception {
        Member member = member(request);
        List<byte[]> packages = list(request.get("packages"));
        boolean inside = request.get("inside").getAsBoolean();
        byte[] leafSecret = new byte[suite.getKDF().getHashLength()];
        RANDOM.nextBytes(leafSecret);
        Clock clock = new Clock();
        byte[][] sent = new byte[2][];
        member.group =
                clock.run(
                        () -> {
                            List<Proposal> proposals = new ArrayList<>();
                            for (JsonElement leaf : request.getAsJsonArray("remove")) {
                                proposals.add(Proposal.remove(new LeafIndex(leaf.getAsInt())));
                            }
                            for (byte[] data : packages) {
                                proposals.add(Proposal.add(message(data).keyPackage));
                            }
                            Group.GroupWithMessage made =
                                    member.group.commit(
                                            new Secret(leafSecret),
                                            new Group.CommitOptions(proposals, inside, true, null),
                                            new Group.MessageOptions(true, NOTHING, 0),
                                            new Group.CommitParameters(Group.NORMAL_COMMIT_PARAMS));
                            sent[0] = MLSOutputStream.encode(made.message);
                            if (made.message.welcome != null) {
                                made.message.wireFormat = WireFormat.mls_welcome;
                                sent[1] = MLSOutputStream.encode(made.message);
                            }
                            return made.group;
                        });
        JsonObject answer = clock.answer();
        answer.addProperty("commit", text(sent[0]));
        boolean welcomed = !packages.isEmpty();
        answer.add("welcome", JsonNull.INSTANCE);
        answer.add("tree", JsonNull.INSTANCE);
        if (welcomed) {
            answer.addProperty("welcome", text(sent[1]));
        }
        if (welcomed && !inside) {
            answer.addProperty("tree", text(MLSOutputStream.encode(member.group.getTree())));
        }
        return answer;
    }

    private JsonObject process(JsonObject request) throws Exception {
        Member member = member(request);
        byte[] commit = bytes(request.get("commit"));
        Clock clock = new Clock();
        member.group = clock.run(() -> member.group.handle(commit, null));
        return clock.answer();
    }

    private JsonObject encrypt(JsonObject request) throws Exception {
        Member member = member(request);
        byte[] data = new byte[request.get("size").getAsInt()];
        Clock clock = new Clock();
        JsonArray messages = new JsonArray();
        for (int i = request.get("count").getAsInt(); i > 0; i--) {
            Callable<byte[]> work =
                    () -> MLSOutputStream.encode(member.group.protect(NOTHING, data, 0));
            messages.add(text(clock.run(work)));
        }
        JsonObject answer = clock.answer();
        answer.add("messages", messages);
        return answer;
    }

    private JsonObject decrypt(JsonObject request) throws Exception {
        Member member = member(request);
        Clock clock = new Clock();
        for (byte[] data : list(request.get("messages"))) {
            clock.run(() -> member.group.unprotect(message(data)));
        }
        return clock.answer();
    }

    private JsonObject drop(JsonObject request) {
        members.remove(request.get("member").getAsString());
        return new JsonObject();
    }

    private JsonObject answer(JsonObject request) throws Exception {
        switch (request.get("do").getAsString()) {
            case "open":
                return open(request);
            case "package":
                return keyPackage(request);
            case "primitives":
                return primitives();
            case "create":
                return create(request);
            case "join":
                return join(request);
            case "commit":
                return commit(request);
            case "process":
                return process(request);
            case "encrypt":
                return encrypt(request);
            case "decrypt":
                return decrypt(request);
            case "drop":
                return drop(request);
            case "save":
            case "load":
                throw new Lacking("the library has no form of a group that could be stored");
            default:
                throw new Lacking("unknown request");
        }
    }

    public static void main(String[] arguments) throws Exception {
        Driver driver = new Driver();
        BufferedReader input =
                new BufferedReader(new InputStreamReader(System.in, StandardCharsets.UTF_8));
        for (String line = input.readLine(); line != null; line = input.readLine()) {
            JsonObject answer = new JsonObject();
            try {
                answer = driver.answer(JsonParser.parseString(line).getAsJsonObject());
            } catch (Exception | StackOverflowError | OutOfMemoryError failure) {
                answer.addProperty("error", failure.toString());
            }
            System.out.println(answer);
        }
    }
}
