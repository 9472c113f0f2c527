package coterie.interop;

import com.google.protobuf.ByteString;
import io.grpc.ForwardingServerCall.SimpleForwardingServerCall;
import io.grpc.ForwardingServerCallListener.SimpleForwardingServerCallListener;
import io.grpc.Metadata;
import io.grpc.Server;
import io.grpc.ServerCall;
import io.grpc.ServerCallHandler;
import io.grpc.ServerInterceptor;
import io.grpc.Status;
import io.grpc.netty.shaded.io.grpc.netty.NettyServerBuilder;
import io.grpc.stub.StreamObserver;
import java.net.InetSocketAddress;
import java.util.concurrent.Executors;
import java.util.regex.Pattern;
import mls_client.MlsClient;
import org.bouncycastle.mls.client.MLSClientImpl;
import org.bouncycastle.mls.codec.Extension;
import org.bouncycastle.mls.codec.ExtensionType;
import org.bouncycastle.mls.codec.MLSInputStream;
import org.bouncycastle.mls.codec.MLSMessage;

/**
 * Serves the interop interface with the service that Bouncy Castle's MLS package brings along.
 *
 * <p>With {@code --replay} it plays test vectors instead, see {@link Replay}.
 *
 * <p>That service is the library authors' own idea of each call; this class adds what a peer of
 * ours must keep: the loopback address, one call at a time, a status with a text instead of a bare
 * UNKNOWN when the library fails in a way that its service does not catch, and UNIMPLEMENTED where
 * the failure is a gap in the library.
 */
public final class BouncyCastlePeer {
    private static final String HOST = "127.0.0.1";
    private static final int MAX_MESSAGE = 64 << 20;

    private static final Pattern UNKNOWN_EXTENSION =
            Pattern.compile("Index -?\\d+ out of bounds for length " + ExtensionType.values().length);

    private BouncyCastlePeer() {}

    public static void main(String[] arguments) throws Exception {
        if (arguments.length == 1 && arguments[0].equals("--replay")) {
            Replay.run();
            return;
        }
        if (arguments.length != 2 || !arguments[0].equals("--port")) {
            System.err.println("usage: --port N, or --replay");
            System.exit(2);
        }
        InetSocketAddress address = new InetSocketAddress(HOST, Integer.parseInt(arguments[1]));
        Server server =
                NettyServerBuilder.forAddress(address)
                        .executor(Executors.newSingleThreadExecutor())
                        .maxInboundMessageSize(MAX_MESSAGE)
                        .addService(new TreeFinder())
                        .intercept(new FailuresWithWords())
                        .build()
                        .start();
        System.out.println("listening on " + HOST + ":" + server.getPort());
        server.awaitTermination();
    }

    /** Lets an external signer find the tree inside the GroupInfo, not only beside it. */
    private static final class TreeFinder extends MLSClientImpl {
        @Override
        public void externalSignerProposal(
                MlsClient.ExternalSignerProposalRequest request,
                StreamObserver<MlsClient.ProposalResponse> observer) {
            super.externalSignerProposal(withTree(request), observer);
        }

        private static MlsClient.ExternalSignerProposalRequest withTree(
                MlsClient.ExternalSignerProposalRequest request) {
            if (!request.getRatchetTree().isEmpty()) {
                return request;
            }
            try {
                byte[] info = request.getGroupInfo().toByteArray();
                MLSMessage message = (MLSMessage) MLSInputStream.decode(info, MLSMessage.class);
                for (Extension extension : message.groupInfo.getExtensions()) {
                    if (extension.extensionType == ExtensionType.RATCHET_TREE) {
                        ByteString tree = ByteString.copyFrom(extension.extension_data);
                        return request.toBuilder().setRatchetTree(tree).build();
                    }
                }
            } catch (Exception undecodable) {
                return request; // The library's own service says what is wrong with it.
            }
            return request;
        }
    }

    /** Turns what escapes from the service into INTERNAL, and closes no call twice. */
    private static final class FailuresWithWords implements ServerInterceptor {
        @Override
        public <Q, R> ServerCall.Listener<Q> interceptCall(
                ServerCall<Q, R> call, Metadata headers, ServerCallHandler<Q, R> next) {
            Guarded<Q, R> guarded = new Guarded<>(call);
            return new SimpleForwardingServerCallListener<Q>(next.startCall(guarded, headers)) {
                @Override
                public void onHalfClose() {
                    try {
                        super.onHalfClose();
                    } catch (Throwable failure) {
                        guarded.close(Status.INTERNAL.withDescription(failure.toString()), new Metadata());
                    }
                }
            };
        }
    }

    /** The library looks an extension type up in a table of those that it knows. */
    static String unknownExtension(String words) {
        if (words == null || !UNKNOWN_EXTENSION.matcher(words).find()) {
            return null;
        }
        return "Bouncy Castle knows no extension types beyond those of RFC 9420: " + words;
    }

    private static Status explained(Status status) {
        String text = unknownExtension(status.getDescription());
        return text == null ? status : Status.UNIMPLEMENTED.withDescription(text);
    }

    private static final class Guarded<Q, R> extends SimpleForwardingServerCall<Q, R> {
        private boolean closed;

        Guarded(ServerCall<Q, R> call) {
            super(call);
        }

        @Override
        public void close(Status status, Metadata trailers) {
            if (closed) {
                return;
            }
            closed = true;
            super.close(explained(status), trailers);
        }
    }
}
