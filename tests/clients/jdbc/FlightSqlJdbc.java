import java.sql.Connection;
import java.sql.DatabaseMetaData;
import java.sql.DriverManager;
import java.sql.PreparedStatement;
import java.sql.ResultSet;
import java.sql.SQLException;
import java.sql.Statement;
import java.util.ArrayList;
import java.util.List;
import java.util.Map;
import java.util.Properties;
import java.util.TreeMap;

/**
 * What DBeaver and Tableau do: DatabaseMetaData, then a prepared statement with a parameter. Prints one line of JSON.
 *
 * <p>java --add-opens=java.base/java.nio=ALL-UNNAMED -cp 'libs/*' FlightSqlJdbc.java HOST PORT USER PASSWORD HARDWARE_ID
 */
public final class FlightSqlJdbc {
    private FlightSqlJdbc() {}

    public static void main(String[] args) throws SQLException {
        String url = "jdbc:arrow-flight-sql://" + args[0] + ":" + args[1] + "/?useEncryption=false";
        Properties login = new Properties();
        login.setProperty("user", args[2]);
        login.setProperty("password", args[3]);
        try (Connection connection = DriverManager.getConnection(url, login)) {
            DatabaseMetaData meta = connection.getMetaData();
            List<String> fields = new ArrayList<>();
            fields.add("\"client\":\"jdbc\"");
            fields.add("\"product\":" + quoted(meta.getDatabaseProductName()));
            fields.add("\"read_only\":" + meta.isReadOnly());
            fields.add("\"quote\":" + quoted(meta.getIdentifierQuoteString()));
            fields.add("\"catalogs\":" + list(column(meta.getCatalogs(), "TABLE_CAT")));
            fields.add("\"schemas\":" + list(column(meta.getSchemas(), "TABLE_SCHEM")));
            fields.add("\"table_types\":" + list(column(meta.getTableTypes(), "TABLE_TYPE")));
            fields.add("\"tables\":" + list(column(meta.getTables(null, null, "%", null), "TABLE_NAME")));
            fields.add("\"one_table\":" + list(column(meta.getTables(null, null, "measure%", null), "TABLE_NAME")));
            fields.add("\"columns\":" + columns(meta));
            fields.add("\"type_info\":" + list(column(meta.getTypeInfo(), "TYPE_NAME")));
            fields.add("\"primary_keys\":" + list(column(meta.getPrimaryKeys(null, null, "measurements"), "COLUMN_NAME")));
            fields.add("\"prepared\":" + prepared(connection, args[4]));
            fields.add("\"statement\":" + statement(connection));
            System.out.println("{" + String.join(",", fields) + "}");
        }
    }

    private static List<String> column(ResultSet rows, String name) throws SQLException {
        List<String> values = new ArrayList<>();
        try (rows) {
            while (rows.next()) {
                values.add(rows.getString(name));
            }
        }
        return values;
    }

    private static String columns(DatabaseMetaData meta) throws SQLException {
        Map<String, String> types = new TreeMap<>();
        try (ResultSet rows = meta.getColumns(null, null, "measurements", "%")) {
            while (rows.next()) {
                types.put(rows.getString("COLUMN_NAME"), rows.getString("TYPE_NAME"));
            }
        }
        List<String> pairs = new ArrayList<>();
        types.forEach((name, type) -> pairs.add(quoted(name) + ":" + quoted(type)));
        return "{" + String.join(",", pairs) + "}";
    }

    private static String prepared(Connection connection, String hardwareId) throws SQLException {
        String sql = "SELECT identifier, value, event_time FROM measurements WHERE hardware_id = ? ORDER BY event_time, identifier";
        List<String> rows = new ArrayList<>();
        try (PreparedStatement statement = connection.prepareStatement(sql)) {
            statement.setString(1, hardwareId);
            try (ResultSet answer = statement.executeQuery()) {
                while (answer.next()) {
                    rows.add("[" + quoted(answer.getString(1)) + "," + answer.getDouble(2) + "," + answer.getTimestamp(3).getTime() + "]");
                }
            }
        }
        return "[" + String.join(",", rows) + "]";
    }

    private static String statement(Connection connection) throws SQLException {
        try (Statement statement = connection.createStatement(); ResultSet answer = statement.executeQuery("SELECT count(*) FROM measurements")) {
            answer.next();
            return String.valueOf(answer.getLong(1));
        }
    }

    private static String list(List<String> values) {
        List<String> texts = new ArrayList<>();
        values.forEach(value -> texts.add(quoted(value)));
        return "[" + String.join(",", texts) + "]";
    }

    private static String quoted(String text) {
        return text == null ? "null" : "\"" + text.replace("\\", "\\\\").replace("\"", "\\\"") + "\"";
    }
}
