// Sends one message with nodemailer; everything comes as JSON on standard input.
const nodemailer = require("nodemailer");

let input = "";
process.stdin.on("data", (chunk) => (input += chunk));
process.stdin.on("end", async () => {
  const job = JSON.parse(input);
  const transport = nodemailer.createTransport({
    host: "localhost",
    port: job.port,
    secure: job.implicit,
    requireTLS: !job.implicit,
    tls: { ca: job.ca },
    auth: { user: job.username, pass: job.secret },
    authMethod: job.mechanism,
  });
  try {
    const sent = await transport.sendMail({
      envelope: { from: job.from, to: job.to },
      from: job.from,
      to: job.to,
      subject: job.subject,
      text: job.text,
      attachments: [{ filename: job.attachment_name, content: Buffer.from(job.attachment, "base64") }],
    });
    console.log(JSON.stringify({ response: sent.response }));
  } catch (error) {
    console.log(JSON.stringify({ error: error.message, code: error.responseCode }));
    process.exitCode = 1;
  }
});
